package fault

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
	"github.com/doppel-iot/doppel/sim/fleet"
)

// timeline is when each sample of a device was first sent, was first durable (in whichever topic), and took
// effect; unix nanoseconds, by number. Durable times are the log's own.
type timeline struct {
	partition             int32
	sent, durable, effect []int64
	times                 []uint8 // how often it took effect
	late                  int
}

func at[T any](all []T, seq uint64) T {
	if seq == 0 || seq > uint64(len(all)) {
		var none T
		return none
	}
	return all[seq-1]
}

func set[T any](all *[]T, seq uint64, v T) {
	if n := int(seq) - len(*all); n > 0 {
		*all = append(*all, make([]T, n)...)
	}
	(*all)[seq-1] = v
}

func (t *timeline) count(seq uint64) int {
	if t == nil {
		return 0
	}
	return int(at(t.times, seq))
}

// was notes that a sample was durable at a time.
func (t *timeline) was(seq uint64, when int64) {
	if have := at(t.durable, seq); have == 0 || when < have {
		set(&t.durable, seq, when)
	}
}

// stopwatch notes when samples were sent, and tells another observer.
type stopwatch struct {
	next fleet.Observer
	ids  []string

	mu   sync.Mutex
	sent [][]int64
}

var _ fleet.Observer = (*stopwatch)(nil)

// Sent implements fleet.Observer.
func (w *stopwatch) Sent(device int, first uint64, count int, when int64) {
	w.mu.Lock()
	for i := range count {
		set(&w.sent[device], first+uint64(i), when)
	}
	w.mu.Unlock()
	w.next.Sent(device, first, count, when)
}

// Poisoned implements fleet.Observer.
func (w *stopwatch) Poisoned(payload []byte) { w.next.Poisoned(payload) }

// take is a claim, in the log of a partition.
type take struct {
	partition int32
	node      string
	when      time.Time
}

// chronicle is what the logs say of times: of the samples of one boot, and of the claims.
type chronicle struct {
	devices map[string]*timeline
	takes   []take
}

// chronicle reads the logs of samples and of raw messages.
func (w *stopwatch) chronicle(boot uint64, telemetry, ingest records) *chronicle {
	c := &chronicle{devices: make(map[string]*timeline)}
	w.mu.Lock()
	for i, id := range w.ids {
		c.devices[id] = &timeline{sent: slices.Clone(w.sent[i])}
	}
	w.mu.Unlock()
	for p, recs := range telemetry {
		c.partition(p, recs, boot)
	}
	for _, recs := range ingest {
		for _, r := range recs {
			t := c.devices[string(r.Key)]
			var m doppelv1.Telemetry
			if t != nil && proto.Unmarshal(r.Value, &m) == nil && m.GetBoot() == boot && m.GetSeq() > 0 {
				t.was(m.GetSeq(), r.Timestamp.UnixNano())
			}
		}
	}
	slices.SortFunc(c.takes, func(a, b take) int { return a.when.Compare(b.when) })
	return c
}

// partition reads the changelog of one by the rules of readers, R1 to R3.
func (c *chronicle) partition(p int32, recs []*kgo.Record, boot uint64) {
	var valid host.Validator
	var decoder codec.EventDecoder
	var ev codec.Event
	for _, r := range recs {
		if err := decoder.Decode(r.Value, &ev); !valid.Valid(r.Offset, &ev, err) {
			continue
		}
		if ev.Kind == doppelv1.EventKind_EVENT_KIND_CLAIM {
			c.takes = append(c.takes, take{p, ev.Claim.Node, r.Timestamp})
			continue
		}
		t := c.devices[string(r.Key)]
		if t == nil {
			continue
		}
		t.partition = p
		when := r.Timestamp.UnixNano()
		if s := &ev.Input.Sample; ev.Kind == doppelv1.EventKind_EVENT_KIND_SAMPLE && s.Boot == boot && s.Seq > 0 {
			t.was(s.Seq, when)
		}
		for i := range ev.Effects.Applied {
			a := &ev.Effects.Applied[i]
			in, seq := a.Boot, a.Seq
			if a.Own {
				in, seq = ev.Input.Sample.Boot, ev.Input.Sample.Seq
			}
			if in != boot || seq == 0 {
				continue
			}
			set(&t.times, seq, at(t.times, seq)+1)
			set(&t.effect, seq, when)
			if a.Late {
				t.late++
			}
		}
	}
}

// pause is the longest that a sample sent in [from, to) waited to take effect, from when all up to it had
// been sent; that is what somebody who watches the device sees as its standing still. false: none was sent.
func (t *timeline) pause(from, to time.Time) (longest time.Duration, some bool) {
	ready := int64(0)
	for i, sent := range t.sent {
		ready = max(ready, sent)
		if sent == 0 || ready < from.UnixNano() || ready >= to.UnixNano() {
			continue
		}
		if done := at(t.effect, uint64(i)+1); done != 0 {
			longest, some = max(longest, time.Duration(done-ready)), true
		}
	}
	return longest, some
}

// durability are the times from sending to durability of the samples sent in [from, to): the node's PUBACK
// goes out with the answer.
func (t *timeline) durability(from, to time.Time) []time.Duration {
	var all []time.Duration
	for i, sent := range t.sent {
		if done := at(t.durable, uint64(i)+1); sent >= from.UnixNano() && sent < to.UnixNano() && done != 0 {
			all = append(all, time.Duration(done-sent))
		}
	}
	return all
}

// quantile gives a share of sorted values; 0 of none.
func quantile[T cmp.Ordered](sorted []T, q float64) T {
	if len(sorted) == 0 {
		var none T
		return none
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
