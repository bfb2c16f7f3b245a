package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// roll is what FollowNodes told.
type roll struct {
	mu    sync.Mutex
	ready []string // what was told before
	known int
	told  []string
}

func (r *roll) caughtUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known++
	r.ready = r.told
}

func (r *roll) enter(id string, n *doppelv1.NodeRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, told(id, n))
}

func told(id string, n *doppelv1.NodeRecord) string {
	if n == nil {
		return id + " gone"
	}
	return fmt.Sprintf("%s %d %s", id, n.GetIncarnation(), n.GetAddress())
}

func (r *roll) has(last string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.told) > 0 && r.told[len(r.told)-1] == last
}

// followNodes follows until the test ends.
func followNodes(t *testing.T, c *Client) *roll {
	t.Helper()
	r := new(roll)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.FollowNodes(ctx, r.caughtUp, r.enter) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("follow: got %v, want %v", err, context.Canceled)
		}
	})
	until(t, "the records are read", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.known == 1
	})
	return r
}

func node(id string, incarnation uint64) *doppelv1.NodeRecord {
	return &doppelv1.NodeRecord{Id: id, Incarnation: incarnation, Address: "host:" + id}
}

func TestFollowNodes(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			if r := followNodes(t, c); r.ready != nil {
				t.Errorf("of an empty log: got %v", r.ready)
			}
			write := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			write(c.PutNode(t.Context(), node("a", 1)))
			write(c.PutNode(t.Context(), node("b", 1)))
			write(c.PutNode(t.Context(), node("a", 2)))
			write(c.RemoveNode(t.Context(), "a", 1)) // an earlier run
			write(c.RemoveNode(t.Context(), "b", 1))
			write(c.RemoveNode(t.Context(), "b", 1)) // again
			write(c.RemoveNode(t.Context(), "x", 1)) // never there
			// A record that no node wrote is passed over.
			write(c.side.ProduceSync(t.Context(), &kgo.Record{Topic: c.topics.Nodes, Key: []byte("c"), Value: []byte("\xff")}).FirstErr())
			other, err := proto.Marshal(node("d", 1))
			write(err)
			write(c.side.ProduceSync(t.Context(), &kgo.Record{Topic: c.topics.Nodes, Key: []byte("c"), Value: other}).FirstErr())

			r := followNodes(t, c)
			want := []string{"a 1 host:a", "b 1 host:b", "a 2 host:a", "b gone"}
			if diff := cmp.Diff(want, r.ready); diff != "" {
				t.Errorf("before it is ready (-want +got)\n%s", diff)
			}
			write(c.PutNode(t.Context(), node("b", 2)))
			until(t, "a new record is told", func() bool { return r.has("b 2 host:b") })
			write(c.RemoveNode(t.Context(), "a", 2))
			until(t, "a removal is told", func() bool { return r.has("a gone") })
		})
	}
}

// What a truncation or compaction removed is passed over, from wherever the reader is.
func TestFollowNodesFromATruncatedLog(t *testing.T) {
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			c := open(t, b.config(t))
			for i := range uint64(5) {
				if err := c.PutNode(t.Context(), node("a", i+1)); err != nil {
					t.Fatal(err)
				}
			}
			configure(t, c, c.topics.Nodes, map[string]string{"cleanup.policy": "compact,delete"})
			var to kadm.Offsets
			to.AddOffset(c.topics.Nodes, 0, 3, -1)
			until(t, "the records are removed", func() bool { // a change of the policy takes its time
				resp, err := c.adm.DeleteRecords(t.Context(), to)
				return errors.Join(err, resp.Error()) == nil
			})
			r := followNodes(t, c)
			if diff := cmp.Diff([]string{"a 4 host:a", "a 5 host:a"}, r.ready); diff != "" {
				t.Errorf("told (-want +got)\n%s", diff)
			}
		})
	}
}

// dial opens a log that is gone at the end.
func dial(t *testing.T, addr string) *Client {
	t.Helper()
	c, err := Open(t.Context(), Config{Brokers: []string{addr}, Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestFollowNodesOutlastsRestart(t *testing.T) {
	dir := t.TempDir()
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0", DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	addr := e.Addr()
	c := dial(t, addr)
	r := followNodes(t, c)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenEmbedded(EmbeddedConfig{Addr: addr, DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := c.PutNode(t.Context(), node("a", 1)); err != nil {
		t.Fatal(err)
	}
	until(t, "a record is told", func() bool { return r.has("a 1 host:a") })
}

func TestRemoveNodeGivesUpWithItsContext(t *testing.T) {
	e, err := OpenEmbedded(EmbeddedConfig{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, e.Addr())
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.RemoveNode(ctx, "a", 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
}
