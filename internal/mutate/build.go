package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// texts gives the files of the package with the mutants of all groups but those
// in without, and the file of switches.
func (f *finder) texts(without map[int]bool) map[string][]byte {
	all := map[string][]byte{filepath.Join(f.source.dir, "mutate_switches.go"): switches(f.source.pkg.Name())}
	for _, each := range f.source.files {
		var edits []edit
		for _, g := range f.edits[each] {
			if !without[g.group] {
				edits = append(edits, g.edit)
			}
		}
		all[each.path] = apply(each.text, edits)
	}
	return all
}

// settle leaves out the groups of mutants that would not build, such as a
// constant that has to stay one, and gives the texts with the others.
func (f *finder) settle() (map[string][]byte, error) {
	without := map[int]bool{}
	texts := f.texts(without)
	if f.source.faults(texts) == nil {
		return texts, nil
	}
	none := map[int]bool{}
	for group := 1; group <= f.groups; group++ {
		none[group] = true
	}
	f.sift(none, 1, f.groups, without)
	f.mutants = slices.DeleteFunc(f.mutants, func(m *mutant) bool { return without[m.group] })
	texts = f.texts(without)
	return texts, f.source.faults(texts)
}

// sift finds which of the groups from..to do not build by themselves, halving
// the range where it has a fault. none is all groups.
func (f *finder) sift(none map[int]bool, from, to int, without map[int]bool) {
	trial := maps.Clone(none)
	for group := from; group <= to; group++ {
		delete(trial, group)
	}
	if f.source.faults(f.texts(trial)) == nil {
		return
	}
	if from == to {
		without[from] = true
		return
	}
	middle := (from + to) / 2
	f.sift(none, from, middle, without)
	f.sift(none, middle+1, to, without)
}

// build makes the test program of the package with its mutants in dir. The
// tree is not touched: the go command reads the changed files from there.
func (f *finder) build(ctx context.Context, dir string) (program string, err error) {
	texts, err := f.settle()
	if err != nil {
		return "", fmt.Errorf("change %s: %w", f.source.folder, err)
	}
	replace := map[string]string{}
	for path, text := range texts {
		changed := filepath.Join(dir, filepath.Base(path))
		err := os.WriteFile(changed, text, 0o600)
		if err != nil {
			return "", err
		}
		replace[path] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlayPath := filepath.Join(dir, "overlay.json")
	err = os.WriteFile(overlayPath, overlay, 0o600)
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, "tests")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlayPath, "-o", program, f.source.path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the tests of %s with mutants: %w\n%s", f.source.folder, err, out)
	}
	return program, nil
}
