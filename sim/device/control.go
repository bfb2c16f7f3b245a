package device

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"slices"
)

// Report is a merge patch of what a device reports of itself, with a numbering of its own in each boot.
type Report struct {
	Boot, Seq uint64
	Patch     []byte // JSON
}

// Command is what a device is told to do. Of two with the same Correlation the second is a repetition.
type Command struct {
	Name        string
	Body        []byte
	Correlation []byte // empty: it cannot be told
}

// Answer is what a device says to a Command.
type Answer struct {
	Status int
	Body   []byte // JSON
}

// The statuses of answers.
const (
	StatusOK       = 200
	StatusBad      = 400
	StatusUnknown  = 404
	StatusConflict = 409
)

// recentCommands is how many commands a device remembers, to know a repetition.
const recentCommands = 16

// minInterval is the shortest interval a device can be told, in milliseconds.
const minInterval = 10

// control is the part of a device that can be told what to do.
type control struct {
	version  uint64 // of the desired properties it knows
	reported map[string]any
	reports  uint64 // in this boot
	recent   []done // oldest first
}

type done struct {
	correlation string
	answer      Answer
}

// Desired takes the desired properties as the twin publishes them, does as they say, and reports what is
// new. false: there is nothing to report.
func (d *Device) Desired(payload []byte, now int64) (Report, bool) {
	var told struct {
		Version uint64         `json:"version"`
		Desired map[string]any `json:"desired"`
	}
	if decode(payload, &told) != nil || told.Version < d.told.version {
		return Report{}, false
	}
	d.told.version = told.Version
	if sampling, ok := told.Desired["_sampling"].(map[string]any); ok {
		d.sample(sampling["current_ms"], now)
	}
	return d.report(difference(told.Desired, d.told.reported))
}

// Command does what it is told: ping, set (a merge patch of what it reports) or reboot. The report is to be
// sent when there is one.
func (d *Device) Command(c *Command, now int64) (a Answer, r Report, reports bool) {
	if len(c.Correlation) > 0 {
		for i := range d.told.recent {
			if d.told.recent[i].correlation == string(c.Correlation) {
				return d.told.recent[i].answer, r, false
			}
		}
	}
	switch c.Name {
	case "ping":
		body := json.RawMessage("null")
		if json.Valid(c.Body) {
			body = c.Body
		}
		a = Answer{StatusOK, object(map[string]any{"pong": body})}
	case "set":
		var patch map[string]any
		if decode(c.Body, &patch) != nil || patch == nil {
			a = Answer{StatusBad, object(map[string]any{"error": "want a JSON object"})}
			break
		}
		r, reports = d.report(patch)
		a = Answer{StatusOK, object(map[string]any{"set": patch})}
	case "reboot":
		if d.cfg.Steady {
			a = Answer{StatusConflict, object(map[string]any{"error": "not now: what it sends is being verified"})}
			break
		}
		d.reboot(now)
		a = Answer{StatusOK, object(map[string]any{"boot": d.cfg.Boot})}
	default:
		a = Answer{StatusUnknown, object(map[string]any{"error": "no such command"})}
	}
	if len(c.Correlation) > 0 {
		if len(d.told.recent) == recentCommands {
			d.told.recent = slices.Delete(d.told.recent, 0, 1)
		}
		d.told.recent = append(d.told.recent, done{string(c.Correlation), a})
	}
	return a, r, reports
}

// report applies a patch to what the device reports.
func (d *Device) report(patch map[string]any) (Report, bool) {
	if len(patch) == 0 {
		return Report{}, false
	}
	if d.told.reported == nil {
		d.told.reported = make(map[string]any)
	}
	merge(d.told.reported, patch)
	d.told.reports++
	return Report{Boot: d.cfg.Boot, Seq: d.told.reports, Patch: object(patch)}, true
}

// sample obeys a publishing interval in milliseconds.
func (d *Device) sample(ms any, now int64) {
	n, ok := ms.(json.Number)
	if !ok || d.cfg.Interval == 0 {
		return
	}
	f, err := n.Float64()
	if err != nil || !(f >= minInterval) || f > math.MaxInt32 {
		return
	}
	d.pace(int64(f*1e6), now)
}

// pace sets the interval; the next sample is due one of it behind the last, or now.
func (d *Device) pace(interval, now int64) {
	last := d.cfg.Start + int64(d.seq)*d.cfg.Interval - d.cfg.Interval
	next := max(last+interval, min(now, last+d.cfg.Interval))
	d.cfg.Interval = interval
	d.cfg.Start = next - int64(d.seq)*interval
}

// reboot begins a new boot: its numbers start again.
func (d *Device) reboot(now int64) {
	if d.cfg.Interval > 0 {
		d.cfg.Start = max(d.cfg.Start+int64(d.seq)*d.cfg.Interval, now)
	}
	d.before += d.seq
	d.seq, d.told.reports = 0, 0
	d.cfg.Boot++
	d.cfg.Plan, d.episode, d.quiet = nil, episode{}, quietStart
}

// difference is the merge patch that makes have contain want.
func difference(want, have map[string]any) map[string]any {
	patch := make(map[string]any)
	for k, w := range want {
		h, there := have[k]
		wanted, isObject := w.(map[string]any)
		had, wasObject := h.(map[string]any)
		switch {
		case isObject && wasObject:
			if inner := difference(wanted, had); len(inner) > 0 {
				patch[k] = inner
			}
		case !there || !reflect.DeepEqual(w, h):
			patch[k] = w
		}
	}
	return patch
}

// merge applies a merge patch (RFC 7396).
func merge(into, patch map[string]any) {
	for k, v := range patch {
		inner, isObject := v.(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case isObject:
			had, ok := into[k].(map[string]any)
			if !ok {
				had = make(map[string]any)
				into[k] = had
			}
			merge(had, inner)
		default:
			into[k] = v
		}
	}
}

// decode reads one JSON value; its numbers stay as they are written.
func decode(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	return dec.Decode(v)
}

// object is v as JSON; what is in it came from JSON.
func object(v map[string]any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return []byte("{}")
	}
	return b
}
