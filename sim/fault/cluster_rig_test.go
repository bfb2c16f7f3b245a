package fault

import (
	"os"
	"testing"
	"time"
)

// clusterRig starts a cluster for a test, and keeps what it wrote if the test fails.
func clusterRig(t *testing.T, proxied bool, binaries ...string) *Rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "doppel-cluster-") //nolint:usetesting // kept if something is wrong
	if err != nil {
		t.Fatal(err)
	}
	if len(binaries) == 0 {
		binaries = []string{command(t)}
	}
	r, err := NewCluster(t.Context(), root(t), dir, proxied, 1, binaries...)
	if err != nil {
		t.Fatalf("%v (kept: %s)", err, dir)
	}
	t.Cleanup(func() {
		r.Close()
		if t.Failed() {
			t.Logf("kept: %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestClusterRig: three nodes start and serve, in namespaces and behind proxies.
func TestClusterRig(t *testing.T) {
	for _, proxied := range []bool{false, true} {
		start := time.Now()
		r := clusterRig(t, proxied)
		t.Logf("%s: ready after %v", r.Network, time.Since(start))
	}
}
