package query

import (
	"context"
	"slices"

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

// walk reads a partition of this node in order of ids, behind one of them.
func walk(ctx context.Context, h Host, p int32, after string, out func(page) error) error {
	ids, err := h.Devices(ctx, p)
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
		if err := out(page{partition: p, twins: twins}); err != nil {
			return err
		}
	}
	return out(page{partition: p, done: true})
}
