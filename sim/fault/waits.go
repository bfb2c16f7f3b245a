package fault

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// waits is how long devices waited for one kind of event.
type waits struct {
	what   string
	events int
	moved  []time.Duration // the pause of each device whose partition was claimed meanwhile
	all    []time.Duration // the pause of each device
	acks   []time.Duration // from sending to durability, of each sample
}

// after is how long after the end of a fault what it does to others may show.
const after = 15 * time.Second

// windows are the times in which each happening shows, by what it is called. One that ends and starts a
// process shows twice.
func windows(all []happening) map[string][][2]time.Time {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b happening) int { return a.from.Compare(b.from) })
	found := make(map[string][][2]time.Time)
	for i, h := range all {
		end := h.to.Add(after)
		if i+1 < len(all) && all[i+1].from.Before(end) {
			end = all[i+1].from
		}
		if end.Before(h.to) {
			end = h.to // the next one begins meanwhile: it shows in both
		}
		// What was on its way when it began is part of it.
		from := h.from.Add(-200 * time.Millisecond)
		what := kindOf(h.fault.Subject) + ": " + string(h.fault.Kind)
		if h.back.IsZero() {
			found[what] = append(found[what], [2]time.Time{from, end})
			continue
		}
		found[what] = append(found[what], [2]time.Time{from, h.back})
		found["node: joins again"] = append(found["node: joins again"], [2]time.Time{h.back, end})
	}
	return found
}

// kindOf is a subject without the numbers of nodes.
func kindOf(s Subject) string {
	parts := strings.Split(string(s), "/")
	for i, p := range parts {
		if strings.HasPrefix(p, "node-") {
			parts[i] = "node"
		}
	}
	return strings.Join(parts, "/")
}

// waits tells how long devices waited, by kind of happening.
func (c *chronicle) waits(all []happening) []waits {
	var table []waits
	for what, ws := range windows(all) {
		w := waits{what: what, events: len(ws)}
		for _, window := range ws {
			moved := make(map[int32]bool)
			for _, t := range c.takes {
				if !t.when.Before(window[0]) && t.when.Before(window[1]) {
					moved[t.partition] = true
				}
			}
			for _, t := range c.devices {
				if p, sent := t.pause(window[0], window[1]); sent {
					w.all = append(w.all, p)
					if moved[t.partition] {
						w.moved = append(w.moved, p)
					}
				}
				w.acks = append(w.acks, t.durability(window[0], window[1])...)
			}
		}
		slices.Sort(w.all)
		slices.Sort(w.moved)
		slices.Sort(w.acks)
		table = append(table, w)
	}
	slices.SortFunc(table, func(a, b waits) int { return strings.Compare(a.what, b.what) })
	return table
}

// String is a line of the table.
func (w *waits) String() string {
	three := func(all []time.Duration) string {
		return fmt.Sprintf("%6d %8.0f %8.0f %8.0f", len(all), ms(quantile(all, 0.5)), ms(quantile(all, 0.99)), ms(quantile(all, 1)))
	}
	return fmt.Sprintf("%-28s %3d | %s | %s | %8.0f %8.0f %8.0f", w.what, w.events, three(w.moved), three(w.all),
		ms(quantile(w.acks, 0.5)), ms(quantile(w.acks, 0.99)), ms(quantile(w.acks, 1)))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// waitsHead is above the table.
const waitsHead = "ms                      events |  moved      p50      p99      max |    all      p50      p99      max | ack  p50      p99      max"
