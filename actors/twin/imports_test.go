package twin_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/doppel-iot/doppel/"

// pure are the packages whose results must depend on their arguments alone.
var pure = []string{"actors/twin", "actors/sequence", "actors/baseline", "actors/alert", "actors/state", "cluster/placement", "sim/device"}

// doors are the standard packages that lead out of a computation, with everything below them.
var doors = []string{
	"context", "crypto/rand", "database", "embed", "io/fs", "io/ioutil", "log", "math/rand", "net", "os", "path/filepath",
	"plugin", "runtime", "sync", "syscall", "testing", "time/tzdata", "unsafe",
}

type goPackage struct {
	ImportPath, Dir  string
	GoFiles, Imports []string
}

// TestPure: the pure packages import only the standard library without its doors, xxhash and each
// other; they start nothing and read no clock.
func TestPure(t *testing.T) {
	args := []string{"list", "-json=ImportPath,Dir,GoFiles,Imports"}
	for _, p := range pure {
		args = append(args, module+p)
	}
	out, err := exec.CommandContext(t.Context(), "go", args...).Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr(err))
	}
	seen := 0
	for d := json.NewDecoder(strings.NewReader(string(out))); ; seen++ {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, i := range p.Imports {
			if why := impure(i); why != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, i, why)
			}
		}
		for _, f := range p.GoFiles {
			checkFile(t, filepath.Join(p.Dir, f))
		}
	}
	if seen != len(pure) {
		t.Errorf("checked %d packages, want %d", seen, len(pure))
	}
}

func impure(path string) string {
	if inner, ok := strings.CutPrefix(path, module); ok {
		if slices.Contains(pure, inner) {
			return ""
		}
		return "it is not pure"
	}
	if path == "github.com/cespare/xxhash/v2" {
		return ""
	}
	if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") {
		return "it is not of the standard library"
	}
	for _, d := range doors {
		if path == d || strings.HasPrefix(path, d+"/") {
			return "it leads outside"
		}
	}
	return ""
}

func checkFile(t *testing.T, name string) {
	t.Helper()
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Local", "LoadLocation"}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			t.Errorf("%s: starts a goroutine", files.Position(n.Pos()))
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, n.Sel.Name) {
				t.Errorf("%s: time.%s", files.Position(n.Pos()), n.Sel.Name)
			}
		}
		return true
	})
}

func stderr(err error) string {
	if e := new(exec.ExitError); errors.As(err, &e) {
		return string(e.Stderr)
	}
	return ""
}
