package command

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doppel-iot/doppel/actors/host"
)

// world is the devices and the broker of a test. It runs in the false time of synctest.
type world struct {
	*Book
	mu     sync.Mutex
	online map[string]bool // absent: no such device
	moved  bool            // the partition is another node's
	sent   []Message
	refuse error
	answer func(m *Message) // by the device; nil: none
}

func newWorld(t *testing.T) *world {
	w := &world{online: map[string]bool{"a": true, "b": true}}
	w.Book = New(Config{Node: "n1", Incarnation: 7, Sender: w, Presence: w})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		w.Book.mu.Lock()
		defer w.Book.mu.Unlock()
		if w.open != 0 || w.bytes != 0 || w.away.Load() != 0 || len(w.lines) != 0 {
			t.Errorf("left behind: %d commands, %d bytes, %d absent, %d lines", w.open, w.bytes, w.away.Load(), len(w.lines))
		}
	})
	return w
}

func (w *world) Online(_ context.Context, _ int32, device string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	online, known := w.online[device]
	switch {
	case w.moved:
		return false, host.ErrUnavailable
	case !known:
		return false, host.ErrUnknownDevice
	}
	return online, nil
}

func (w *world) Send(_ context.Context, m *Message) error {
	w.mu.Lock()
	if w.refuse != nil {
		defer w.mu.Unlock()
		return w.refuse
	}
	w.sent = append(w.sent, *m)
	answer := w.answer
	w.mu.Unlock()
	if answer != nil {
		answer(m)
	}
	return nil
}

// echo answers at once with what it was told.
func (w *world) echo(m *Message) {
	w.Reply(&Reply{Device: m.Device, Name: m.Name, Correlation: m.Correlation, Answer: NewAnswer("", m.Body)})
}

func (w *world) set(device string, online bool) {
	w.mu.Lock()
	w.online[device] = online
	w.mu.Unlock()
	if w.Watching() {
		w.Changed(device)
	}
}

func (w *world) bodies() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, m := range w.sent {
		all = append(all, m.Device+" "+string(m.Body))
	}
	return all
}

func (w *world) messages() []Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Message(nil), w.sent...)
}

// outcome of a call that runs beside the test.
type outcome struct {
	answer Answer
	err    error
	took   time.Duration
}

func (w *world) invoke(ctx context.Context, c Command) <-chan outcome {
	done := make(chan outcome, 1)
	if c.Device == "" {
		c.Device = "a"
	}
	if c.Name == "" {
		c.Name = "ping"
	}
	go func() {
		start := time.Now()
		a, err := w.Invoke(ctx, &c)
		done <- outcome{a, err, time.Since(start)}
	}()
	synctest.Wait()
	return done
}

func wantError(t *testing.T, got <-chan outcome, want error, took time.Duration) {
	t.Helper()
	o := <-got
	if !errors.Is(o.err, want) || o.took != took {
		t.Errorf("got %v after %v, want %v after %v", o.err, o.took, want, took)
	}
}

func wantAnswer(t *testing.T, got <-chan outcome, want string) {
	t.Helper()
	o := <-got
	if o.err != nil {
		t.Errorf("got error %v, want answer %s", o.err, want)
		return
	}
	if diff := cmp.Diff(Answer{Status: 200, Body: []byte(want)}, o.answer); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.answer = w.echo
		wantAnswer(t, w.invoke(t.Context(), Command{Body: []byte(`1`)}), "1")
		got := w.messages()[0]
		want := Message{Device: "a", Name: "ping", Body: []byte("1"), Correlation: []byte("n1/7/1"), Expiry: 30 * time.Second}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

// TestErrorsBeforeSending: what a call meets without any message to a device.
func TestErrorsBeforeSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set("a", false)
		wantError(t, w.invoke(t.Context(), Command{Device: "c"}), host.ErrUnknownDevice, 0)
		wantError(t, w.invoke(t.Context(), Command{}), ErrOffline, 0)
		w.mu.Lock()
		w.moved = true
		w.mu.Unlock()
		wantError(t, w.invoke(t.Context(), Command{}), host.ErrUnavailable, 0)
		if got := w.bodies(); len(got) > 0 {
			t.Errorf("sent %v", got)
		}
	})
}

// TestOrder: one command of a device at a time, in the order of the calls, whatever others do.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var calls []<-chan outcome
		for i := range 5 {
			calls = append(calls, w.invoke(t.Context(), Command{Body: fmt.Append(nil, i)}))
		}
		other := w.invoke(t.Context(), Command{Device: "b", Body: []byte("9")})
		for i, call := range calls {
			synctest.Wait()
			all := w.messages()
			if want := i + 2; len(all) != want {
				t.Fatalf("%d messages are out before answer %d, want %d", len(all), i, want)
			}
			m := all[len(all)-1]
			if i == 0 {
				m = all[0]
			}
			w.echo(&m)
			wantAnswer(t, call, strconv.Itoa(i))
		}
		m := w.messages()[1]
		w.echo(&m)
		wantAnswer(t, other, "9")
		want := []string{"a 0", "b 9", "a 1", "a 2", "a 3", "a 4"}
		if diff := cmp.Diff(want, w.bodies()); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.invoke(t.Context(), Command{Body: []byte("1"), Timeout: 5 * time.Second})
		second := w.invoke(t.Context(), Command{Body: []byte("2"), Timeout: 3 * time.Second})
		third := w.invoke(t.Context(), Command{Body: []byte("3")})
		wantError(t, second, ErrExpired, 3*time.Second)
		wantError(t, first, ErrNoReply, 5*time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"a 1", "a 3"}, w.bodies()); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
		if got, want := w.messages()[1].Expiry, 25*time.Second; got != want {
			t.Errorf("expiry %v, want %v: what is left of the time", got, want)
		}
		late := w.messages()[0]
		w.echo(&late) // answers nothing any more
		m := w.messages()[1]
		w.echo(&m)
		wantAnswer(t, third, "3")
	})
}

// TestOldDevice: a reply without correlation answers the command in flight, if its name is that.
func TestOldDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		call := w.invoke(t.Context(), Command{Name: "set"})
		w.Reply(&Reply{Device: "a", Name: "ping", Answer: NewAnswer("", []byte("wrong name"))})
		w.Reply(&Reply{Device: "b", Name: "set", Answer: NewAnswer("", []byte("wrong device"))})
		w.Reply(&Reply{Device: "a", Name: "set", Correlation: []byte("n2/7/1"), Answer: NewAnswer("", []byte("another node's"))})
		w.Reply(&Reply{Device: "a", Name: "set", Answer: NewAnswer("", []byte("right"))})
		wantAnswer(t, call, "right")
	})
}

func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.answer = w.echo
		w.set("a", false)
		first := w.invoke(t.Context(), Command{Body: []byte("1"), Queue: true})
		second := w.invoke(t.Context(), Command{Body: []byte("2"), Queue: true})
		short := w.invoke(t.Context(), Command{Queue: true, Timeout: time.Second})
		wantError(t, w.invoke(t.Context(), Command{}), ErrOffline, 0)
		wantError(t, short, ErrExpired, time.Second)
		w.Changed("a") // still offline
		time.Sleep(2 * lookEvery)
		if got := w.bodies(); len(got) > 0 {
			t.Fatalf("sent %v to a device that is offline", got)
		}
		w.set("a", true)
		wantAnswer(t, first, "1")
		wantAnswer(t, second, "2")
		if w.Watching() {
			t.Error("changes are wanted though nobody waits for a device")
		}
	})
}

// TestGoesOffline: a device that goes while commands wait for their turn gets only those that wait for it.
func TestGoesOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.invoke(t.Context(), Command{Body: []byte("1"), Timeout: time.Second})
		plain := w.invoke(t.Context(), Command{Body: []byte("2")})
		queued := w.invoke(t.Context(), Command{Body: []byte("3"), Queue: true})
		w.set("a", false)
		wantError(t, first, ErrNoReply, time.Second)
		wantError(t, plain, ErrOffline, time.Second)
		w.mu.Lock()
		w.answer = w.echo
		w.mu.Unlock()
		w.set("a", true)
		wantAnswer(t, queued, "3")
	})
}

func TestKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := Command{Body: []byte("1"), Key: "k"}
		first, again := w.invoke(t.Context(), c), w.invoke(t.Context(), c)
		other := c
		other.Body = []byte("2")
		wantError(t, w.invoke(t.Context(), other), ErrKeyReused, 0)
		elsewhere := c
		elsewhere.Device = "b"
		b := w.invoke(t.Context(), elsewhere)
		if diff := cmp.Diff([]string{"a 1", "b 1"}, w.bodies()); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
		for _, m := range w.messages() {
			if string(m.Correlation) != "key/k" {
				t.Errorf("correlation %q does not follow from the key", m.Correlation)
			}
			w.echo(&m)
		}
		for _, call := range []<-chan outcome{first, again, b, w.invoke(t.Context(), c)} {
			wantAnswer(t, call, "1")
		}
		w.set("a", false)
		wantAnswer(t, w.invoke(t.Context(), c), "1") // it is known, wherever the device is
		w.set("a", true)
		time.Sleep(remember + time.Second)
		w.mu.Lock()
		w.answer = w.echo
		w.mu.Unlock()
		wantAnswer(t, w.invoke(t.Context(), other), "2")
	})
}

// TestKeyAfterFailure: another attempt is made, and the device can tell that it is one.
func TestKeyAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := Command{Body: []byte("1"), Key: "k", Timeout: time.Second}
		wantError(t, w.invoke(t.Context(), c), ErrNoReply, time.Second)
		w.mu.Lock()
		w.answer = w.echo
		w.mu.Unlock()
		wantAnswer(t, w.invoke(t.Context(), c), "1")
		m := w.messages()
		if len(m) != 2 || string(m[0].Correlation) != string(m[1].Correlation) {
			t.Errorf("got %q, want the same correlation twice", m)
		}
	})
}

// TestCallerGoes: a command without a key ends with its caller, one with a key does not.
func TestCallerGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set("a", false)
		ctx, cancel := context.WithCancel(t.Context())
		gone := w.invoke(ctx, Command{Body: []byte("1"), Queue: true})
		keyed := Command{Body: []byte("2"), Queue: true, Key: "k"}
		left := w.invoke(ctx, keyed)
		cancel()
		wantError(t, gone, context.Canceled, 0)
		wantError(t, left, context.Canceled, 0)
		w.mu.Lock()
		w.answer = w.echo
		w.mu.Unlock()
		w.set("a", true)
		wantAnswer(t, w.invoke(t.Context(), keyed), "2")
		if diff := cmp.Diff([]string{"a 2"}, w.bodies()); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		bound, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w.mu.Lock()
		w.answer = nil
		w.mu.Unlock()
		wantError(t, w.invoke(bound, Command{}), ErrNoReply, time.Second)

		ctx, cancel = context.WithCancel(t.Context())
		sent := w.invoke(ctx, Command{Body: []byte("3")})
		cancel()
		wantError(t, sent, context.Canceled, 0)
		next := w.invoke(t.Context(), Command{Body: []byte("4")})
		if got := w.bodies(); got[len(got)-1] != "a 3" {
			t.Errorf("%q is sent while the device has another command", got[len(got)-1])
		}
		w.Reply(&Reply{Device: "a", Name: "ping", Answer: NewAnswer("", []byte("3"))}) // of an old device
		synctest.Wait()
		w.Reply(&Reply{Device: "a", Name: "ping", Answer: NewAnswer("", []byte("4"))})
		wantAnswer(t, next, "4")
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range maxWaiting + 1 { // one is with the device
			w.invoke(ctx, Command{})
		}
		wantError(t, w.invoke(ctx, Command{}), ErrFull, 0)
		b := w.invoke(ctx, Command{Device: "b"})
		synctest.Wait()
		m := w.messages()[1]
		w.Reply(&Reply{Device: "b", Name: "ping", Correlation: m.Correlation, Answer: NewAnswer("", make([]byte, MaxBody+1))})
		wantError(t, b, ErrTooLarge, 0)
		w.Book.mu.Lock()
		w.open += maxCommands
		w.Book.mu.Unlock()
		wantError(t, w.invoke(ctx, Command{Device: "b"}), ErrFull, 0)
		w.Book.mu.Lock()
		w.open -= maxCommands
		w.Book.mu.Unlock()
	})
}

// TestMemoryIsBounded by what answers weigh.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.answer = func(m *Message) {
			w.Reply(&Reply{Device: m.Device, Name: m.Name, Answer: NewAnswer("", make([]byte, MaxBody))})
		}
		for i := range maxRememberBytes/MaxBody + 10 {
			if _, err := w.Invoke(t.Context(), &Command{Device: "a", Name: "ping", Key: strconv.Itoa(i)}); err != nil {
				t.Fatal(err)
			}
		}
		w.Book.mu.Lock()
		defer w.Book.mu.Unlock()
		if m := &w.memory; m.bytes > maxRememberBytes || len(m.order) != len(m.keys) || len(m.order) != maxRememberBytes/MaxBody {
			t.Errorf("%d answers with %d keys and %d bytes are remembered", len(m.order), len(m.keys), m.bytes)
		}
	})
}

func TestBrokerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.refuse = fmt.Errorf("%w: no connection", ErrNotSent)
		wantError(t, w.invoke(t.Context(), Command{}), ErrNotSent, 0)
		w.refuse = errors.New("connection broke")
		wantError(t, w.invoke(t.Context(), Command{}), ErrUncertain, 0)
	})
}

// TestMove: what was not sent goes with the partition, what was sent is still answered here.
func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		sent := w.invoke(t.Context(), Command{Body: []byte("1")})
		waiting := w.invoke(t.Context(), Command{Body: []byte("2")})
		w.set("b", false)
		queued := w.invoke(t.Context(), Command{Device: "b", Queue: true})
		w.mu.Lock()
		w.moved = true
		w.mu.Unlock()
		w.Served(1, false) // another one
		w.Served(0, true)
		synctest.Wait()
		if len(waiting) > 0 || len(queued) > 0 {
			t.Fatal("ended by what became of another partition")
		}
		w.Served(0, false)
		wantError(t, waiting, host.ErrUnavailable, 0)
		wantError(t, queued, host.ErrUnavailable, 0)
		m := w.messages()[0]
		w.echo(&m)
		wantAnswer(t, sent, "1")
	})
}

func TestMoveUnheardOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set("a", false)
		queued := w.invoke(t.Context(), Command{Queue: true})
		w.mu.Lock()
		w.moved = true
		w.mu.Unlock()
		o := <-queued
		if !errors.Is(o.err, host.ErrUnavailable) || o.took > lookEvery {
			t.Errorf("got %v after %v, want %v within %v", o.err, o.took, host.ErrUnavailable, lookEvery)
		}
	})
}

func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{online: map[string]bool{"a": true}}
		w.Book = New(Config{Node: "n1", Sender: w, Presence: w})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()
		sent := w.invoke(t.Context(), Command{})
		waiting := w.invoke(t.Context(), Command{})
		cancel()
		<-ended
		wantError(t, sent, ErrUncertain, 0)
		wantError(t, waiting, host.ErrClosed, 0)
		wantError(t, w.invoke(t.Context(), Command{}), host.ErrClosed, 0)
	})
}

func TestBodies(t *testing.T) {
	for _, tc := range []struct{ said, want string }{
		{"", "<nil>"},
		{" \n", "<nil>"},
		{`{"a":1}`, `map[a:1]`},
		{`null`, "<nil>"},
		{`"x"`, "x"},
		{"not json", "bm90IGpzb24="},
		{"\x00\xff", "AP8="},
	} {
		v := value([]byte(tc.said))
		if got := fmt.Sprint(v.AsInterface()); got != tc.want {
			t.Errorf("%q: got %s, want %s", tc.said, got, tc.want)
		}
	}
	if a := NewAnswer("404", nil); a.Status != 404 {
		t.Errorf("status %d, want 404", a.Status)
	}
	for _, none := range []string{"", "soon", strings.Repeat("9", 20)} {
		if a := NewAnswer(none, nil); a.Status != 200 {
			t.Errorf("status %d of %q, want 200", a.Status, none)
		}
	}
}
