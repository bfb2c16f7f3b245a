package query

import (
	"context"
	"slices"

	"github.com/doppel-iot/doppel/actors/filter"
	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// scanChunk is how many twins are read of a partition at a time.
const scanChunk = 256

// page is some twins of a partition on their way to whoever scans it.
type page struct {
	partition int32
	twins     []*doppelv1.Twin
	done      bool
}

func serves(h Host, p int32) bool { return answers(h.Partition(p)) }

// answers says whether a partition of this node can be asked.
func answers(v host.View) bool { return v.State == host.Serving || v.State == host.Leaving }

// walk reads what of a partition of this node passes a filter, in order of ids, behind one of them.
func walk(ctx context.Context, h Host, p int32, match filter.Filter, after string, out func(page) error) error {
	ids, err := matching(ctx, h, p, match)
	if err != nil {
		return err
	}
	if i, found := slices.BinarySearch(ids, after); found {
		ids = ids[i+1:]
	} else {
		ids = ids[i:]
	}
	for chunk := range slices.Chunk(ids, scanChunk) {
		twins, err := h.Twins(ctx, p, chunk)
		if err != nil {
			return err
		}
		if twins, err = passing(twins, match); err != nil {
			return err
		}
		if err := out(page{partition: p, twins: twins}); err != nil {
			return err
		}
	}
	return out(page{partition: p, done: true})
}

// matching are the ids of the twins of a partition that pass a filter, in order.
func matching(ctx context.Context, h Host, p int32, match filter.Filter) ([]string, error) {
	if match.String() == "" {
		return h.Devices(ctx, p)
	}
	got, err := h.Select(ctx, p, &host.Query{Filter: match})
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(got.Keys))
	for i := range got.Keys {
		ids[i] = got.Keys[i].ID()
	}
	return ids, nil
}

// passing drops the twins that have changed since they were found, and do not pass any more.
func passing(twins []*doppelv1.Twin, match filter.Filter) ([]*doppelv1.Twin, error) {
	left := twins[:0]
	for _, t := range twins {
		ok, err := match.Matches(t)
		if err != nil {
			return nil, err
		}
		if ok {
			left = append(left, t)
		}
	}
	return left, nil
}
