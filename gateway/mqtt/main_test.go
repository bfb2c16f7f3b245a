package mqtt

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doppel-iot/doppel/actors/host"
)

func TestMain(m *testing.M) {
	if os.Getenv(firehoseEnv) != "" {
		os.Exit(firehoseMain())
	}
	if addr := os.Getenv(publisherEnv); addr != "" {
		os.Exit(publisherMain(addr))
	}
	goleak.VerifyTestMain(m)
}

// owner is the inlet and refuser of a test: it records what comes and gives the verdicts it is told to.
type owner struct {
	mu      sync.Mutex
	msgs    []host.Message
	letters []host.DeadLetter
	// verdict decides at once; ok false: the message is held until release is called.
	verdict func(host.Message) (v host.Verdict, ok bool)
	refused func(host.DeadLetter) error
	gate    chan struct{} // not nil: Deliver blocks until it is closed or ctx ends
}

func releaseAll(host.Message) (host.Verdict, bool) { return host.Released, true }

func holdAll(host.Message) (host.Verdict, bool) { return 0, false }

func newOwner(verdict func(host.Message) (host.Verdict, bool)) *owner {
	return &owner{verdict: verdict}
}

func (o *owner) Deliver(ctx context.Context, msgs []host.Message) error {
	o.mu.Lock()
	gate := o.gate
	o.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for i := range msgs {
		o.mu.Lock()
		m := msgs[i]
		o.msgs = append(o.msgs, m)
		v, ok := o.verdict(m)
		o.mu.Unlock()
		if ok {
			m.Reply.Done([]uint64{m.Token}, v)
		}
	}
	return nil
}

func (o *owner) Refuse(_ context.Context, d host.DeadLetter, done func(error)) {
	o.mu.Lock()
	o.letters = append(o.letters, d)
	var err error
	if o.refused != nil {
		err = o.refused(d)
	}
	o.mu.Unlock()
	done(err)
}

func (o *owner) block(gate chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gate = gate
}

func (o *owner) received() []host.Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]host.Message(nil), o.msgs...)
}

func (o *owner) dead() []host.DeadLetter {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]host.DeadLetter(nil), o.letters...)
}

// await returns the messages received once there are n.
func (o *owner) await(t *testing.T, n int) []host.Message {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages at the inlet", n), func() bool { return len(o.received()) >= n })
	return o.received()
}

func (o *owner) awaitDead(t *testing.T, n int) []host.DeadLetter {
	t.Helper()
	eventually(t, fmt.Sprintf("%d dead letters", n), func() bool { return len(o.dead()) >= n })
	return o.dead()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// never polls for a while and fails if the condition comes true.
func never(t *testing.T, what string, span time.Duration, bad func() bool) {
	t.Helper()
	deadline := time.Now().Add(span)
	for time.Now().Before(deadline) {
		if bad() {
			t.Fatalf("must not happen: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	return slog.New(slog.DiscardHandler)
}

// start runs a door for the time of the test.
func start(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("run: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("run did not end")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}
