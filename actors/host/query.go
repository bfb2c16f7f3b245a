package host

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/doppel-iot/doppel/actors/codec"
	"github.com/doppel-iot/doppel/actors/twin"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// scanChunk is how many twins a scan converts in one turn of a partition, so that ingest waits no
// longer than that.
const scanChunk = 256

// Twin is the twin of a device of partition p, as of the last released record. Where the log does not
// answer for a second, it is as this node knows it, and says that it is stale.
func (h *Host) Twin(ctx context.Context, p int32, device string) (*doppelv1.Twin, error) {
	twins, err := h.Twins(ctx, p, []string{device})
	if err != nil {
		return nil, err
	}
	if len(twins) == 0 {
		return nil, ErrUnknownDevice
	}
	return twins[0], nil
}

// Twins are the twins of devices of partition p; those that do not exist are left out.
func (h *Host) Twins(ctx context.Context, p int32, devices []string) ([]*doppelv1.Twin, error) {
	var twins []*doppelv1.Twin
	stale, err := h.show(ctx, p, func(o *owner) uint64 {
		var newest uint64
		twins = twins[:0]
		for _, d := range devices {
			if c := o.twins[d]; c != nil {
				if c.twin.Deleted() {
					newest = max(newest, c.lastN)
					continue
				}
				twins = append(twins, o.proto(&c.twin, c.quarantined))
				newest = max(newest, c.lastN)
			} else if p := o.idle.passive[d]; p != nil && !p.deleted { // all of it is released
				ok := o.decode(&o.idle.read, d, p)
				twins = append(twins, o.proto(&o.idle.read, !ok))
			}
		}
		return newest
	})
	if err != nil {
		return nil, err // twins may be being written still
	}
	for _, t := range twins {
		t.Stale = stale
	}
	return twins, nil
}

// Devices are the ids of all twins of partition p, in order.
func (h *Host) Devices(ctx context.Context, p int32) ([]string, error) {
	var ids []string
	_, err := h.show(ctx, p, func(o *owner) uint64 {
		ids = make([]string, 0, len(o.twins)+len(o.idle.passive))
		for id, c := range o.twins {
			if !c.twin.Deleted() {
				ids = append(ids, id)
			}
		}
		for id, p := range o.idle.passive {
			if !p.deleted {
				ids = append(ids, strings.Clone(id)) // it shares the memory of the whole twin
			}
		}
		return o.n
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(ids)
	return ids, nil
}

// EachTwin calls fn with every twin of partition p, in order of id, until fn returns false.
func (h *Host) EachTwin(ctx context.Context, p int32, fn func(*doppelv1.Twin) bool) error {
	ids, err := h.Devices(ctx, p)
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(ids, scanChunk) {
		twins, err := h.Twins(ctx, p, chunk)
		if err != nil {
			return err
		}
		for _, t := range twins {
			if !fn(t) {
				return nil
			}
		}
	}
	return nil
}

// Alerts are the open alerts of partition p and those resolved within 24 hours, newest first.
func (h *Host) Alerts(ctx context.Context, p int32) ([]*doppelv1.Alert, error) {
	var alerts []*doppelv1.Alert
	_, err := h.show(ctx, p, func(o *owner) uint64 {
		o.alerts.expire(o.now)
		for _, e := range o.alerts.byID {
			alerts = append(alerts, codec.Alert(e.device, &e.alert))
		}
		return 0 // the index holds released alerts only
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(alerts, NewestFirst)
	return alerts, nil
}

// NewestFirst is the order of lists of alerts.
func NewestFirst(a, b *doppelv1.Alert) int {
	return cmp.Or(b.GetCreateTime().AsTime().Compare(a.GetCreateTime().AsTime()), cmp.Compare(a.GetId(), b.GetId()))
}

// Alert is one of those alerts; nil if partition p has none of that id.
func (h *Host) Alert(ctx context.Context, p int32, id string) (*doppelv1.Alert, error) {
	n, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		return nil, ErrUnknownAlert
	}
	var found *doppelv1.Alert
	_, err = h.show(ctx, p, func(o *owner) uint64 {
		if e, ok := o.alerts.byID[n]; ok {
			found = codec.Alert(e.device, &e.alert)
		}
		return 0
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Partition shows partition p.
func (h *Host) Partition(p int32) View { return *h.parts[p].view.Load() }

// Partitions show every partition of this node.
func (h *Host) Partitions() []View {
	views := make([]View, len(h.parts))
	for i, p := range h.parts {
		views[i] = *p.view.Load()
	}
	return views
}

// ask runs read on the goroutine of partition p and returns when the record that read names, and so
// everything it saw, is released (O6: nothing is shown that the log may still refuse).
func (h *Host) ask(ctx context.Context, p int32, read func(*owner) uint64) error {
	_, err := h.settled(ctx, p, read)
	return err
}

// settled is ask that also gives the offset behind the newest record released by then.
func (h *Host) settled(ctx context.Context, p int32, read func(*owner) uint64) (next int64, err error) {
	if err := ctx.Err(); err != nil { // or what nobody waits for any more might be written
		return 0, err
	}
	if !h.parts[p].view.Load().answers() {
		return 0, ErrUnavailable
	}
	type answer struct {
		next int64
		err  error
	}
	done := make(chan answer, 1)
	h.parts[p].box.call(func(o *owner) {
		if o == nil || !o.served {
			done <- answer{err: ErrUnavailable}
			return
		}
		n := read(o)
		if n <= o.released {
			done <- answer{next: o.prev + 1}
			return
		}
		*o.pend.push() = pending{n: o.n, fn: func() {
			if o.released < n { // the epoch ended first
				done <- answer{err: ErrUnavailable}
				return
			}
			done <- answer{next: o.prev + 1}
		}}
	})
	select {
	case a := <-done:
		return a.next, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (o *owner) proto(from *twin.Twin, quarantined bool) *doppelv1.Twin {
	t := codec.Twin(from)
	t.Owner, t.Epoch, t.Quarantined = o.host.cfg.Node, o.epoch, t.GetQuarantined() || quarantined
	return t
}
