package storagetest

import (
	"sync"
	"testing"
	"time"
)

// ack is one call of Acks.Ack.
type ack struct {
	N      uint64
	Offset int64
	Err    error
}

// recorder is a host.Acks that keeps what it is told.
type recorder struct {
	mu   sync.Mutex
	cond *sync.Cond
	got  []ack
}

func newRecorder() *recorder {
	r := &recorder{}
	r.cond = sync.NewCond(&r.mu)
	return r
}

// Ack implements host.Acks.
func (r *recorder) Ack(n uint64, offset int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, ack{n, offset, err})
	r.cond.Broadcast()
}

// wait returns the acks once there are count of them.
func (r *recorder) wait(t *testing.T, count int) []ack {
	t.Helper()
	late := time.AfterFunc(patience, r.cond.Broadcast)
	defer late.Stop()
	deadline := time.Now().Add(patience)
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.got) < count {
		if !time.Now().Before(deadline) {
			t.Fatalf("got %d acks after %v, want %d", len(r.got), patience, count)
		}
		r.cond.Wait()
	}
	return append([]ack(nil), r.got...)
}
