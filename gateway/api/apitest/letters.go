package apitest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Letters implements api.DeadLetters in memory. Safe for concurrent use.
type Letters struct {
	mu    sync.Mutex
	start int64
	all   []*doppelv1.DeadLetter // by offset; nil: a marker, or expired
	sent  []Sent
	err   error         // what sending again fails with
	block chan struct{} // non-nil: sending again waits for it
}

// Sent is a message sent again.
type Sent struct {
	Of      string // id of its letter
	Message host.Message
}

// Add appends letters, whose ids it sets, and receive times where they have none.
func (l *Letters) Add(letters ...*doppelv1.DeadLetter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range letters {
		n := len(l.all)
		d.Id = "0-" + strconv.Itoa(n)
		if d.GetReceiveTime() == nil {
			d.ReceiveTime = timestamppb.New(Epoch().Add(time.Duration(n) * time.Second))
		}
		l.all = append(l.all, d)
	}
}

// Expire removes letters below an offset.
func (l *Letters) Expire(below int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start = below
	clear(l.all[:below])
}

// Fail makes sending again fail with err, nil: no more.
func (l *Letters) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// Block makes sending again wait until the returned function is called.
func (l *Letters) Block() (unblock func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	block := make(chan struct{})
	l.block = block
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.block = nil
		close(block)
	}
}

// Sent are the messages sent again, in order.
func (l *Letters) Sent() []Sent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Sent(nil), l.sent...)
}

// Bounds implements api.DeadLetters.
func (l *Letters) Bounds(context.Context) (start, end int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.start, int64(len(l.all)), nil
}

// Scan implements api.DeadLetters.
func (l *Letters) Scan(ctx context.Context, from, to int64, fn func(*doppelv1.DeadLetter) error) error {
	l.mu.Lock()
	part := make([]*doppelv1.DeadLetter, 0, to-from)
	for _, d := range l.all[from:min(to, int64(len(l.all)))] {
		if d != nil {
			part = append(part, proto.CloneOf(d))
		}
	}
	l.mu.Unlock()
	for _, d := range part {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
		if err := fn(d); err != nil {
			return err
		}
	}
	return nil
}

// Redrive implements api.DeadLetters: the mark takes an offset, as it does in the log.
func (l *Letters) Redrive(_ context.Context, of *doppelv1.DeadLetter, m *host.Message, done func(error)) {
	l.mu.Lock()
	err, block := l.err, l.block
	if err == nil {
		l.sent = append(l.sent, Sent{Of: of.GetId(), Message: *m})
	}
	l.mu.Unlock()
	go func() {
		if block != nil {
			<-block
		}
		if err == nil {
			l.mu.Lock()
			offset, _ := strconv.Atoi(strings.TrimPrefix(of.GetId(), "0-"))
			l.all[offset].Redriven = true
			l.all = append(l.all, nil)
			l.mu.Unlock()
		}
		done(err)
	}()
}
