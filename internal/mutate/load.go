package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// source is one package with its types, as it lies in the tree.
type source struct {
	folder   string // from the module's root, with slashes
	path     string // the import path
	dir      string
	fset     *token.FileSet
	files    []*file
	pkg      *types.Package
	info     *types.Info
	importer types.Importer

	// rapid and dbtest report whether the tests import these packages.
	rapid, dbtest bool
}

// file is one Go file of a package, tests excluded.
type file struct {
	path   string
	text   []byte
	syntax *ast.File
}

// listed is what go list says of one package.
type listed struct {
	ImportPath string
	Dir        string
	Export     string
	GoFiles    []string
	TestImports,
	XTestImports []string
}

const (
	rapidPath  = "pgregory.net/rapid"
	dbtestPath = "github.com/muster-fleet/muster/db/dbtest"
)

// load reads and checks the package in folder, which is relative to the current
// directory.
func load(ctx context.Context, folder string) (*source, error) {
	packages, err := list(ctx, folder)
	if err != nil {
		return nil, err
	}
	self := packages[len(packages)-1]
	s := &source{folder: filepath.ToSlash(filepath.Clean(folder)), path: self.ImportPath, dir: self.Dir, fset: token.NewFileSet()}
	imported := slices.Concat(self.TestImports, self.XTestImports)
	s.rapid, s.dbtest = slices.Contains(imported, rapidPath), slices.Contains(imported, dbtestPath)

	exports := map[string]string{}
	for _, p := range packages {
		exports[p.ImportPath] = p.Export
	}
	s.importer = importer.ForCompiler(s.fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	for _, name := range self.GoFiles {
		f := &file{path: filepath.Join(self.Dir, name)}
		f.text, err = os.ReadFile(f.path)
		if err != nil {
			return nil, err
		}
		f.syntax, err = parser.ParseFile(s.fset, f.path, f.text, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, f)
	}
	s.info = &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{},
		Defs:  map[*ast.Ident]types.Object{},
		Uses:  map[*ast.Ident]types.Object{},
	}
	config := types.Config{Importer: s.importer}
	s.pkg, err = config.Check(s.path, s.fset, s.syntax(), s.info)
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", folder, err)
	}
	return s, nil
}

func (s *source) syntax() []*ast.File {
	var all []*ast.File
	for _, f := range s.files {
		all = append(all, f.syntax)
	}
	return all
}

// list asks the go command for a package and all that it imports, built, and
// for what the file of switches imports. The package comes last.
func list(ctx context.Context, folder string) ([]listed, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-export",
		"-json=ImportPath,Dir,Export,GoFiles,TestImports,XTestImports",
		"cmp", "fmt", "os", "strconv", "sync", "./"+filepath.ToSlash(folder))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w\n%s", folder, err, stderr.Bytes())
	}
	var packages []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("go list %s: %w", folder, err)
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		return nil, fmt.Errorf("go list %s: it lists no package", folder)
	}
	return packages, nil
}

// faults gives the first error of the package with other texts in place of its
// files, by the path of the file; nil: it would build.
func (s *source) faults(texts map[string][]byte) error {
	fset := token.NewFileSet()
	var files []*ast.File
	for path, text := range texts {
		syntax, err := parser.ParseFile(fset, path, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, syntax)
	}
	config := types.Config{Importer: s.importer}
	_, err := config.Check(s.path, fset, files, nil)
	return err
}
