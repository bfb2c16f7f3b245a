package fleet

import (
	"testing"

	"github.com/doppel-iot/doppel/sim/device"
)

// The window against a table of what waits, over several rounds of the packet ids.
func TestWindow(t *testing.T) {
	t.Parallel()
	w := newWindow(100)
	r := device.NewRandom(1, 2)
	waiting := make(map[uint16]uint64) // packet id to first number
	oldest, next := uint64(1), uint64(1)
	for step := range 800_000 {
		if w.waiting() < 100 && r.Chance(0.52) {
			w.fill(w.tail, &message{first: next, samples: 1})
			id := packetID(w.tail)
			if id == 0 {
				t.Fatal("packet id 0")
			}
			if _, used := waiting[id]; used {
				t.Fatalf("packet id %d given twice", id)
			}
			waiting[id] = next
			w.tail++
			next++
			continue
		}
		id := uint16(r.Uint64())
		if w.waiting() > 0 && r.Chance(0.9) {
			id = packetID(w.head + r.Uint64()%min(8, w.tail-w.head)) // mostly in turn
		}
		want, known := waiting[id]
		s := w.ack(id)
		if known != (s != nil) || known && s.first != want {
			t.Fatalf("step %d: ack of %d gave %+v, want %d, %v", step, id, s, want, known)
		}
		delete(waiting, id)
		for oldest < next && !contains(waiting, oldest) {
			oldest++
		}
		if got := int(next - oldest); w.waiting() != got {
			t.Fatalf("step %d: %d waiting, want %d", step, w.waiting(), got)
		}
	}
	if next < 3*packetIDs {
		t.Errorf("only %d messages: the ids did not come round", next)
	}
}

// contains: number n, the n-th message from 1, still waits.
func contains(waiting map[uint16]uint64, n uint64) bool {
	got, ok := waiting[packetID(n-1)]
	return ok && got == n
}

func TestQueue(t *testing.T) {
	t.Parallel()
	var q queue[int64]
	r := device.NewRandom(1, 3)
	inside := 0
	last := int64(0)
	for range 100_000 {
		switch {
		case inside == 0 || r.Chance(0.4):
			at := last + int64(r.Intn(1000))
			q.push(at, at)
			inside++
		case r.Chance(0.3):
			at := q.top().at + int64(r.Intn(1000))
			q.top().value = at
			q.moveTop(at)
		default:
			at := q.top().at
			if v := q.pop(); v != at || at < last {
				t.Fatalf("popped %d at %d behind %d", v, at, last)
			}
			last = at
			inside--
		}
	}
	if q.empty() != (inside == 0) {
		t.Errorf("empty %v with %d inside", q.empty(), inside)
	}
}

func TestReceiveMaximum(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		body []byte
		want int
		ok   bool
	}{
		{"none", []byte{0, 0, 0}, 65535, true},
		{"alone", []byte{0, 0, 3, 0x21, 1, 0}, 256, true},
		{"behind others", []byte{0, 0, 18, 0x24, 1, 0x11, 0, 0, 0, 9, 0x12, 0, 2, 'i', 'd', 0x22, 0, 9, 0x21, 0, 20}, 20, true},
		{"behind all kinds", []byte{0, 0, 25, 0x24, 1, 0x11, 0, 0, 0, 9, 0x12, 0, 2, 'i', 'd', 0x26, 0, 1, 'k', 0, 1, 'v', 0x22, 0, 9, 0x21, 0, 20}, 20, true},
		{"unknown property", []byte{0, 0, 4, 0x7f, 0x21, 0, 20}, 65535, true},
		{"cut short", []byte{0, 0, 2, 0x21, 0}, 65535, true},
		{"longer than it is", []byte{0, 0, 9, 0x21, 0, 20}, 0, false},
		{"too short", []byte{0, 0}, 0, false},
		{"refused", []byte{0, 0x87, 0}, 0, false},
	} {
		got, err := parseConnack(V5, c.body)
		if (err == nil) != c.ok || c.ok && got != c.want {
			t.Errorf("%s: %d, %v; want %d, %v", c.name, got, err, c.want, c.ok)
		}
	}
}
