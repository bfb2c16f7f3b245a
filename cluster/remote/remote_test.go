package remote

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

func numbers(n int) (s []uint64) {
	for i := range n {
		s = append(s, uint64(i+1))
	}
	return s
}

func TestMessagesArriveInOrder(t *testing.T) {
	a, b := startNode(t), startNode(t)
	in := b.inbox()
	a.connected(t, b.Address())
	const n = 20_000
	for i := range n {
		m := beat(uint64(i + 1))
		for err := a.Tell(b.Address(), "inbox", m); err != nil; err = a.Tell(b.Address(), "inbox", m) {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
		}
		m.Reset() // the sender's again
	}
	eventually(t, "all arrived", func() bool { return in.len() == n })
	if diff := cmp.Diff(numbers(n), in.seqs()); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if got := in.from[0]; got != a.Address() {
		t.Errorf("from %s, want %s", got, a.Address())
	}
	if got, most := a.Stats().Batches.Load(), uint64(n/2); got > most {
		t.Errorf("%d batches for %d messages, want at most %d", got, n, most)
	}
	eventually(t, "nothing is queued", func() bool { return a.Stats().Queued.Load() == 0 })
}

// TestOrderPerSender: many senders, actors and peers at once; of each the order stays.
func TestOrderPerSender(t *testing.T) {
	const senders, each = 8, 2000
	nodes := []*node{startNode(t), startNode(t), startNode(t)}
	var inboxes []*inbox
	for _, n := range nodes {
		inboxes = append(inboxes, n.inbox())
	}
	for _, from := range nodes {
		for _, to := range nodes {
			from.connected(t, to.Address())
		}
	}
	var wg sync.WaitGroup
	for _, from := range nodes {
		for s := range senders {
			wg.Go(func() {
				for i := range each {
					for _, to := range nodes { // itself, too
						m := &doppelv1.Heartbeat{Node: from.Address(), Incarnation: uint64(s), Seq: uint64(i + 1)}
						if err := from.Tell(to.Address(), "inbox", m); err != nil {
							t.Error(err)
							return
						}
					}
				}
			})
		}
	}
	wg.Wait()
	for i, in := range inboxes {
		eventually(t, "all arrived", func() bool { return in.len() == len(nodes)*senders*each || t.Failed() })
		last := map[string]uint64{}
		for k, m := range in.got {
			b := m.(*doppelv1.Heartbeat)
			if b.GetNode() != in.from[k] {
				t.Fatalf("a message of %s is said to be from %s", b.GetNode(), in.from[k])
			}
			sender := fmt.Sprint(b.GetNode(), b.GetIncarnation())
			if b.GetSeq() != last[sender]+1 {
				t.Fatalf("node %d got message %d of %s after %d", i, b.GetSeq(), sender, last[sender])
			}
			last[sender]++
		}
	}
}
