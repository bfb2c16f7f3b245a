package fault

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// What `make torture` sets; what is not set is the short form of `make test`.
var (
	seedFlag    = flag.Uint64("seed", 0, "seed of the first round, each further round takes the next (0: from the clock)")
	roundsFlag  = flag.Int("rounds", 0, "rounds, each a system started anew (0: 1; with -long: 10 embedded, 5 others)")
	faultsFlag  = flag.Int("faults", 0, "crash points of a round (0: a few; with -long: 20 embedded, 10 real, 20 of a cluster)")
	targetFlag  = flag.String("target", "", "embedded, real, broker, cluster, pauses or blackout (default: embedded, real and cluster; with -long also blackout)")
	longFlag    = flag.Bool("long", false, "the long form: 200 crash points embedded, 50 real, 100 of a cluster")
	proxiedFlag = flag.Bool("proxied", false, "a cluster behind proxies, even where there are network namespaces")
	binaryFlag  = flag.String("binary", "", "the doppel command to torture (default: built from this tree)")
)

// size is how much of a target's torture is done.
type size struct{ rounds, faults int }

var (
	shortForm = map[Target]size{Embedded: {1, 10}, Real: {1, 5}, Broker: {1, 4}, ClusterOf3: {1, 4}, Pauses: {1, 2}, Blackout: {1, 1}}
	longForm  = map[Target]size{Embedded: {10, 20}, Real: {5, 10}, Broker: {1, 10}, ClusterOf3: {5, 20}, Pauses: {1, 20}, Blackout: {1, 1}}
)

// root of the repository, seen from this package's directory.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// builds is where the command is built, once.
var builds string

var build = sync.OnceValues(func() (string, error) {
	file := filepath.Join(builds, "doppel")
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", file, "github.com/doppel-iot/doppel")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return file, nil
})

// command is the binary under test.
func command(t *testing.T) string {
	t.Helper()
	if *binaryFlag != "" {
		return *binaryFlag
	}
	file, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestMain(m *testing.M) {
	if os.Getenv(asNode) != "" {
		if err := runNode(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "node:", err)
			os.Exit(1)
		}
		return
	}
	code := 1
	var err error
	if builds, err = os.MkdirTemp("", "doppel-torture-bin-"); err == nil {
		code = m.Run()
		err = os.RemoveAll(builds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		code = 1
	}
	os.Exit(code)
}

// TestTorture: whatever plug is pulled under load, nothing that was acknowledged is lost, doubled or out of
// order, and every derived number is that of an uninterrupted run.
func TestTorture(t *testing.T) {
	targets := []Target{Embedded, Real, ClusterOf3}
	if *longFlag {
		targets = append(targets, Blackout)
	}
	if *targetFlag != "" {
		targets = []Target{Target(*targetFlag)}
	}
	for _, target := range targets {
		form, known := shortForm[target]
		if *longFlag {
			form = longForm[target]
		}
		if !known {
			t.Fatalf("no target %q: want embedded, real, broker, cluster, pauses or blackout", target)
		}
		if *roundsFlag > 0 {
			form.rounds = *roundsFlag
		}
		if *faultsFlag > 0 {
			form.faults = *faultsFlag
		}
		t.Run(string(target), func(t *testing.T) { torture(t, target, form) })
	}
}

func torture(t *testing.T, target Target, form size) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixMilli() % 1e9)
	}
	points, failed := 0, 0
	for i := range uint64(form.rounds) {
		again := fmt.Sprintf("make torture TARGET=%s SEED=%d ROUNDS=1 FAULTS=%d", target, seed+i, form.faults)
		t.Logf("round %d of %d: %s", i+1, form.rounds, again)
		load := DefaultLoad()
		if target.Clustered() {
			load = ClusterLoad()
		}
		o := round(t, &Round{Target: target, Seed: seed + i, Faults: form.faults, Load: load, Proxied: *proxiedFlag})
		points += o.Faults
		t.Logf("round %d of %d: %s", i+1, form.rounds, o)
		if target == Broker {
			t.Logf("of %d samples that Mosquitto acknowledged, %d were gone with its memory", o.Acked, o.Lost)
		}
		if len(o.Waits) > 0 {
			t.Log(waitsHead)
		}
		for i := range o.Waits {
			t.Log(&o.Waits[i])
		}
		if len(o.Findings) == 0 {
			continue
		}
		failed++
		t.Errorf("replay with: %s\n  %s", again, strings.Join(o.Findings, "\n  "))
	}
	t.Logf("%d crash points, %d of %d rounds with findings", points, failed, form.rounds)
}

// round carries r out in a directory of its own, which is kept if something is wrong.
func round(t *testing.T, r *Round) *Outcome {
	t.Helper()
	dir, err := os.MkdirTemp("", "doppel-torture-") //nolint:usetesting // kept if something is wrong
	if err != nil {
		t.Fatal(err)
	}
	r.Dir, r.Root, r.Binary, r.Out = dir, root(t), command(t), testWriter{t}
	if t.Setenv(asNode, ""); r.Seed%2 == 1 {
		// Every other round restores mostly from checkpoints, of which a minute of the product has few.
		t.Setenv(asNode, withCheckpoint)
		if r.Binary, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	o, err := r.Run(t.Context())
	if err != nil {
		t.Fatalf("round: %v (kept: %s)", err, dir)
	}
	if len(o.Findings) > 0 {
		t.Logf("kept: %s", dir)
	} else if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
	return o
}

// testWriter makes lines of a test's log.
type testWriter struct{ t *testing.T }

var _ io.Writer = testWriter{}

// Write implements io.Writer.
func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}
