package host

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestBeat: what follows a pause is signalled at once, what follows that waits for the next beat, together;
// many messages do not wait.
func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 4 * time.Millisecond
		b := newBeat(every)
		boxes := []*mailbox{newMailbox(room{4096, 1 << 20}, b), newMailbox(room{4096, 1 << 20}, b)}
		woken := make(chan int, 16)
		stop := make(chan struct{})
		defer close(stop)
		for _, m := range boxes {
			go func() {
				for {
					select {
					case <-m.wake:
						woken <- len(m.takeMessages(nil))
					case <-stop:
						return
					}
				}
			}()
		}
		push := func(m *mailbox, n int) {
			if err := m.push(t.Context(), make([]Message, n)); err != nil {
				t.Fatal(err)
			}
		}
		expect := func(what string, want int, within, after time.Duration) {
			t.Helper()
			begin := time.Now()
			got := <-woken
			if took := time.Since(begin); got != want || took < after || took > within {
				t.Errorf("%s: a turn for %d messages after %v, want %d within %v..%v", what, got, took, want, after, within)
			}
		}
		time.Sleep(time.Second)
		push(boxes[0], 1)
		expect("behind a pause", 1, gather, 0)
		push(boxes[0], 1)
		push(boxes[1], 2)
		push(boxes[0], 1)
		time.Sleep(every / 2)
		select {
		case n := <-woken:
			t.Errorf("within a beat: a turn for %d messages", n)
		default:
		}
		first, second := <-woken, <-woken
		if first+second != 4 || first != second {
			t.Errorf("at the beat: turns for %d and %d messages, want 2 and 2", first, second)
		}
		push(boxes[1], many)
		expect("many", many, 0, 0)
		boxes[1].call(func(*owner) {})
		expect("a call", 0, 0, 0)
		synctest.Wait()
	})
}

// TestBeatLosesNothing: whatever the moment at which something is put in, a signal follows.
func TestBeatLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every, total = time.Millisecond, 5000
		m := newMailbox(room{1 << 20, 1 << 30}, newBeat(every))
		go func() {
			for i := range total {
				if err := m.push(t.Context(), make([]Message, 1)); err != nil {
					t.Error(err)
				}
				if i%3 == 0 {
					time.Sleep(every * time.Duration(i%7) / 5)
				}
			}
		}()
		for got := 0; got < total; {
			select {
			case <-m.wake:
				got += len(m.takeMessages(nil))
			case <-time.After(time.Second):
				t.Fatalf("no signal after %d of %d messages", got, total)
			}
		}
	})
}
