package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/doppel-iot/doppel"

// layer forbids packages to import others. Folders stand for everything below them; those of this
// module are written without its name, "." is its root.
type layer struct {
	why        string
	of, except []string // who must not
	no, but    []string // import what
	tests      bool     // not even in tests
}

// TestLayers holds every package to the architecture: who may import whom.
func TestLayers(t *testing.T) {
	layers := []layer{
		{of: []string{"actors"}, no: []string{"gateway", "storage", "cluster"}, tests: true, why: "actors declare the interfaces they need"},
		{of: []string{"storage"}, no: []string{"gateway", "cluster"}, but: []string{"cluster/placement"}, why: "only cluster/node wires"},
		{of: []string{"gateway"}, no: []string{"storage", "cluster/node"}, why: "only cluster/node wires"},
		{of: []string{"actors", "cluster", "gateway", "storage", "proto"}, no: []string{"sim"}, why: "nothing that ships imports the simulator"},
		{of: []string{"proto"}, no: []string{"."}, but: []string{"proto"}, tests: true, why: "the wire formats stand alone"},
		{of: []string{"."}, except: []string{"actors/host", "cluster/remote"}, no: []string{"github.com/anthdm/hollywood"}, tests: true, why: "two packages know the actor engine"},
	}
	pkgs := list(t)
	for _, l := range layers {
		matched := false
		for _, p := range pkgs {
			if !below(p.ImportPath, l.of) || below(p.ImportPath, l.except) {
				continue
			}
			matched = true
			imports := p.Imports
			if l.tests {
				imports = slices.Concat(imports, p.TestImports, p.XTestImports)
			}
			for _, imp := range imports {
				if below(imp, l.no) && !below(imp, l.but) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, l.why)
				}
			}
		}
		if !matched {
			t.Errorf("no package is below %v: a rule that matches nothing checks nothing", l.of)
		}
	}
}

// TestPureImports holds the pure packages to the standard library without its doors to the outside,
// one hash, and each other.
func TestPureImports(t *testing.T) {
	pure := []string{"actors/twin", "actors/sequence", "actors/baseline", "actors/alert", "actors/state", "cluster/placement", "sim/device"}
	doors := []string{"os", "net", "log", "sync", "context", "math/rand", "crypto/rand", "database/sql"}
	seen := 0
	for _, p := range list(t) {
		if !below(p.ImportPath, pure) {
			continue
		}
		seen++
		for _, imp := range p.Imports {
			switch {
			case imp == "github.com/cespare/xxhash/v2", below(imp, pure):
			case strings.Contains(imp, "."), isDoor(imp, doors):
				t.Errorf("pure package %s imports %s", p.ImportPath, imp)
			}
		}
	}
	if seen < len(pure) {
		t.Errorf("found %d pure packages, want at least %d", seen, len(pure))
	}
}

type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var pkgs []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("decode go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}

// below reports whether path is one of dirs or below one.
func below(path string, dirs []string) bool {
	for _, dir := range dirs {
		switch {
		case dir == ".":
			dir = module
		case !strings.Contains(dir, "."):
			dir = module + "/" + dir
		}
		if path == dir || strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}

func isDoor(path string, doors []string) bool {
	top, _, _ := strings.Cut(path, "/")
	return slices.Contains(doors, top) || slices.Contains(doors, path)
}
