package system_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/cluster/node/nodetest"
	"github.com/doppel-iot/doppel/cluster/placement"
)

// TestClusterStory: what an operator does to a cluster, by the doors an operator has, while a fleet sends:
// nodes join, are drained, stopped, killed and started again. Nobody but the operator notices.
func TestClusterStory(t *testing.T) {
	c := newCluster(t)
	n1, n2 := c.launch("n1"), c.launch("n2")
	n1.ready()
	n2.ready()
	n2.awaitNodes("two nodes", map[*process]string{n1: "serving", n2: "serving"})
	table := ok(t, binary, "cluster", "status", "--addr", n2.GRPC)
	for _, want := range []string{n1.name, n2.name, "PARTITION", "MOVING TO", "EPOCH"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table does not have %q:\n%s", want, table)
		}
	}
	f := c.fleet(n1, n2)
	still := c.still(n1, n2)
	w := c.watches(n1, n2)
	w.change("before anything happens")

	before := n2.pages()
	n3 := c.launch("n3")
	three := map[*process]string{n1: "serving", n2: "serving", n3: "serving"}
	for joined, walks := false, 0; !joined; walks++ {
		now := n2.status()
		joined = now.settled(three) == nil
		if diff := cmp.Diff(before, n2.pages()); diff != "" {
			t.Errorf("walk %d while a node joins (-before +now):\n%s", walks, diff)
		}
		if walks > 50 {
			t.Fatal("the third node does not join")
		}
	}
	n3.ready()
	epochs := n2.awaitNodes("a third node joins", three)
	still.same(t, n2, n3)
	told := ok(t, "grpcurl", "-plaintext", n3.GRPC, "doppel.v1.FleetService/GetStatus")
	for p := range three {
		if !strings.Contains(told, `"`+p.name+`"`) {
			t.Errorf("grpcurl is not told of %s:\n%s", p.name, told)
		}
	}

	began := time.Now()
	n1.signal(syscall.SIGTERM)
	if code := n1.exit(30 * time.Second); code != 0 {
		t.Errorf("a node that is stopped: exit code %d, want 0", code)
	}
	t.Logf("a node left within %v", time.Since(began).Round(time.Millisecond))
	n3.awaitNodes("a node is stopped", map[*process]string{n2: "serving", n3: "serving"}) // and its record gone
	w.change("after a node was stopped")
	still.same(t, n2, n3)

	told = ok(t, binary, "cluster", "drain", n2.name, "--wait", "--addr", n3.GRPC)
	if want := n2.name + " is drained and has 0 partitions\n"; told != want {
		t.Errorf("cluster drain --wait: %q, want %q", told, want)
	}
	n2.awaitNodes("a node is drained", map[*process]string{n2: "drained", n3: "serving"})
	still.same(t, n2, n3)
	ok(t, binary, "cluster", "drain", n2.name, "--undo", "--wait", "--addr", n3.GRPC)
	n3.awaitNodes("it is given its share again", map[*process]string{n2: "serving", n3: "serving"})

	n3.signal(syscall.SIGKILL)
	n3.exit(10 * time.Second)
	n2.awaitNodes("a node is killed", map[*process]string{n2: "serving"})
	w.change("after a node was killed")
	n3 = n3.relaunch()
	n3.ready()
	now := n3.awaitNodes("it is started again", map[*process]string{n2: "serving", n3: "serving"})
	still.same(t, n2, n3)
	for i, p := range now.Partitions {
		if was := epochs.Partitions[i]; p.Owner != was.Owner && p.Epoch == was.Epoch {
			t.Errorf("partition %d: %s and %s served it in the same epoch %s", i, was.Owner, p.Owner, p.Epoch)
		}
	}

	if code := f.interrupt(90 * time.Second); code != 0 {
		t.Errorf("sim: exit code %d, want 0: it found something lost, doubled or out of order", code)
	}
	w.end()
	var audited result
	if !pollEvery(time.Second, func() bool {
		audited = run(t, nil, binary, "audit", "--addr", n2.GRPC)
		return audited.code == 0
	}) {
		t.Errorf("audit: exit code %d\n%s%s", audited.code, audited.stdout, audited.stderr)
	}
}

// fleet sends through the whole story.
func (c *cluster) fleet(nodes ...*process) *background {
	c.t.Helper()
	f := launchBeside(c.t, "sim", "--broker", c.services.MQTT, "--kafka", c.services.Kafka, "--questdb", c.services.QuestDB,
		"--grpc", doors(nodes...), "--http", nodes[0].HTTP, "--topic-root", c.root, "--topic-prefix", c.prefix, "--prefix", nodetest.Unique("f")+"-",
		"--devices", "60", "--rate", "5", "--duration", "10m", "--faults", "dup=0.02,reorder=0.02", "--verify",
		"--report", filepath.Join(c.t.TempDir(), "report.json"))
	if !nodetest.Poll(func() bool { return strings.Contains(f.says.String(), " 1s  sent") }) {
		c.t.Fatal("the fleet does not send")
	}
	return f
}

// still are twins, one in each partition, whose devices are silent.
type still struct {
	prefix string
	twins  map[string]map[string]any // without what a move may change
}

func (c *cluster) still(n1, n2 *process) *still {
	c.t.Helper()
	s := &still{prefix: nodetest.Unique("still") + "-"}
	owners := make(map[string]bool)
	taken := make(map[int32]bool)
	for i := 0; len(taken) < clusterPartitions; i++ {
		id := fmt.Sprint(s.prefix, i)
		p := placement.Partition([]byte(id), clusterPartitions)
		if taken[p] {
			continue
		}
		taken[p] = true
		n1.pub(id+"/telemetry", fmt.Sprintf(`{"boot":3,"seq":1,"time":"2026-11-22T10:00:00Z","metrics":{"temperature":%d.5}}`, i))
		n1.await(id, "there", func(tw twin) bool { return tw.Counters.Applied == "1" })
		one, two := n1.raw(id), n2.raw(id)
		if diff := cmp.Diff(one, two); diff != "" {
			c.t.Errorf("the same twin through two nodes (-%s +%s):\n%s", n1.name, n2.name, diff)
		}
		owners[one["owner"].(string)] = true
	}
	if !owners[n1.name] || !owners[n2.name] || len(owners) != 2 {
		c.t.Errorf("twins of every partition are owned by %v, want both nodes", owners)
	}
	s.twins = s.through(n1)
	return s
}

// raw is a twin as `doppel twin get -o json` shows it.
func (p *process) raw(id string) (tw map[string]any) {
	p.t.Helper()
	text := ok(p.t, binary, "twin", "get", id, "--addr", p.GRPC, "-o", "json")
	if err := json.Unmarshal([]byte(text), &tw); err != nil {
		p.t.Fatalf("twin get: %v: %s", err, text)
	}
	return tw
}

func (s *still) through(p *process) map[string]map[string]any {
	p.t.Helper()
	twins := p.list("twin", "--filter", fmt.Sprintf("id.startsWith(%q)", s.prefix))
	for _, tw := range twins {
		delete(tw, "owner")
		delete(tw, "stale") // for a moment, where the log is slow
	}
	return twins
}

// same says whether the twins are what they were, through each of nodes.
func (s *still) same(t *testing.T, nodes ...*process) {
	t.Helper()
	for _, p := range nodes {
		if diff := cmp.Diff(s.twins, s.through(p)); diff != "" || len(s.twins) != clusterPartitions {
			t.Errorf("twins through %s (-before +now):\n%s", p.name, diff)
		}
	}
}

// pages reads all twins, a page at a time, as curl does, and gives their ids. A page that is not to be had
// because a partition moves is asked for again.
func (p *process) pages() (ids []string) {
	p.t.Helper()
	for token := ""; ; {
		var page struct {
			Twins         []struct{ ID string }
			NextPageToken string
		}
		query := url.Values{"page_size": {"25"}, "page_token": {token}}
		text := ok(p.t, "curl", "-sS", "--fail", "--retry", "20", "--retry-delay", "1", "http://"+p.HTTP+"/v1/twins?"+query.Encode())
		if err := json.Unmarshal([]byte(text), &page); err != nil {
			p.t.Fatalf("twins: %v: %s", err, text)
		}
		for _, tw := range page.Twins {
			ids = append(ids, tw.ID)
		}
		if token = page.NextPageToken; token == "" {
			slices.Sort(ids)
			return ids
		}
	}
}
