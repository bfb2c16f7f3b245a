package fault

import (
	"context"
	"errors"
	"fmt"
	"time"

	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// witness looks at a cluster while all its nodes are cut off from Kafka: twins are readable everywhere and
// say that they may be behind, and nobody acknowledges anything.
type witness struct {
	nodes []*live
	ids   []string // some devices
}

const (
	// staleWithin is how long after the cut twins must show that they may be behind.
	staleWithin = 8 * time.Second
	// readLimit is how long a read may take meanwhile.
	readLimit = 3 * time.Second
)

// look is called when the cut begins, and takes most of it: outage.
func (w *witness) look(ctx context.Context, outage time.Duration) error {
	start := time.Now()
	sleep(ctx, staleWithin)
	before, err := w.acknowledged(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for pass := 0; pass == 0 || time.Since(start) < outage-2*readLimit; pass++ {
		for i, n := range w.nodes {
			for _, id := range w.ids {
				if err := w.read(ctx, n, id); err != nil {
					errs = append(errs, fmt.Errorf("node %d, %v after the cut: %w", i+1, time.Since(start).Round(time.Millisecond), err))
				}
			}
		}
		sleep(ctx, min(5*time.Second, max(0, outage-2*readLimit-time.Since(start))))
	}
	after, err := w.acknowledged(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if after > before {
		errs = append(errs, fmt.Errorf("%v messages were acknowledged without Kafka", after-before))
	}
	return errors.Join(errs[:min(len(errs), shown)]...)
}

func (w *witness) read(ctx context.Context, n *live, id string) error {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	t, err := doppelv1.NewTwinServiceClient(n.conn).GetTwin(ctx, &doppelv1.GetTwinRequest{Id: id})
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", id, err)
	case !t.GetStale():
		return fmt.Errorf("%s is not marked stale", id)
	default:
		return nil
	}
}

// acknowledged is how many messages the nodes have acknowledged to the broker.
func (w *witness) acknowledged(ctx context.Context) (float64, error) {
	sum := 0.0
	for _, n := range w.nodes {
		m, err := n.metrics(ctx)
		if err != nil {
			return 0, err
		}
		sum += m[`doppel_stage_seconds_count{stage="puback"}`]
	}
	if sum == 0 {
		return 0, errors.New("no node has acknowledged anything, so nothing can be said of it")
	}
	return sum, nil
}
