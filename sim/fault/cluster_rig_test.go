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
	r, err := NewCluster(t.Context(), &ClusterConfig{Root: root(t), Dir: dir, Proxied: proxied, Members: binaries})
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
		r := clusterRig(t, proxied, command(t), command(t), command(t))
		t.Logf("%s: ready after %v", r.Network, time.Since(start))
	}
}

// TestClusterOfOne: the judges find nothing wrong with a cluster of one node, to which nothing happens but
// what a single node bears.
func TestClusterOfOne(t *testing.T) {
	load := ClusterLoad()
	o := round(t, &Round{Target: ClusterOf3, Seed: 2, Load: load, Members: []string{command(t)}, Schedule: []Fault{
		{At: time.Second, Subject: "node-1", Kind: Terminate, For: time.Second},
		{At: 15 * time.Second, Subject: Between("node-1", Kafka), Kind: StallUp, For: 2 * time.Second},
	}})
	t.Logf("%s\n%s", o, waitsHead)
	for i := range o.Waits {
		t.Log(&o.Waits[i])
	}
	for _, f := range o.Findings {
		t.Error(f)
	}
}
