package fault

import (
	"strings"
	"testing"
	"time"
)

// TestClusterBehindProxies: where there are no network namespaces a cluster is tried all the same.
func TestClusterBehindProxies(t *testing.T) {
	o := round(t, &Round{Target: ClusterOf3, Seed: 6, Load: ClusterLoad(), Proxied: true, Schedule: []Fault{
		{At: 1 * time.Second, Subject: "node-1", Kind: Kill, For: time.Second},
		{At: 6 * time.Second, Subject: Between("node-2", "node-3"), Kind: Stall, For: 2 * time.Second},
		{At: 7 * time.Second, Subject: Between("node-2", Kafka), Kind: StallUp, For: 2 * time.Second},
		{At: 10 * time.Second, Subject: Between("node-3", Mosquitto), Kind: DelayDown, For: 2 * time.Second},
	}})
	t.Logf("%s", o)
	if len(o.Findings) > 0 {
		t.Errorf("findings:\n  %s", strings.Join(o.Findings, "\n  "))
	}
}
