package remote

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func numbers(n int) (s []uint64) {
	for i := range n {
		s = append(s, uint64(i+1))
	}
	return s
}

func TestMessagesArriveInOrder(t *testing.T) {
	a, b := startNode(t), startNode(t)
	in := b.inbox("inbox")
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
