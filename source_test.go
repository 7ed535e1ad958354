package muster_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/muster-fleet/muster"

// sourceFile is a Go file of ours.
type sourceFile struct {
	path    string // from the root, with slashes
	room    string // its folder; "" for the root
	test    bool
	imports []string
	syntax  *ast.File
}

// sourceFiles reads every Go file, whatever system it is for. It asks no go
// command, whose reading the test cache would not see.
func sourceFiles(t *testing.T) []sourceFile {
	t.Helper()
	var files []sourceFile
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && ignored(name):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(name) != ".go":
			return nil
		}
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // an editor's file, gone again
		}
		if err != nil {
			return err
		}
		f, err := parse(filepath.ToSlash(name), text)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(files, func(f sourceFile) bool { return f.room == "cmd/muster" }) {
		t.Fatalf("%d Go files found, none of cmd/muster: is this the root?", len(files))
	}
	return files
}

// ignored is what the go command passes over, and modules of their own.
func ignored(dir string) bool {
	base := filepath.Base(dir)
	if base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_' {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func parse(name string, text []byte) (sourceFile, error) {
	syntax, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
	if err != nil {
		return sourceFile{}, err
	}
	f := sourceFile{path: name, room: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), syntax: syntax}
	if f.room == "." {
		f.room = ""
	}
	for _, spec := range syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return sourceFile{}, err
		}
		f.imports = append(f.imports, imported)
	}
	return f, nil
}

// ourRoom is the room that an import path names, where it is one of ours.
func ourRoom(imported string) (string, bool) {
	if imported == module {
		return "", true
	}
	return strings.CutPrefix(imported, module+"/")
}

// isStandard goes by the rule that only other modules have a dot in the first
// element of their path.
func isStandard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}
