package router

import (
	"context"
	"fmt"

	"github.com/doppel-iot/doppel/cluster/placement"
)

// Reset lifts a twin's quarantine or lets its device number anew; see host.Host.Reset.
func (r *Reader) Reset(ctx context.Context, id string) error {
	if err := r.host.Reset(ctx, placement.Partition([]byte(id), r.partitions), id); err != nil {
		return fmt.Errorf("reset %q: %w", id, err)
	}
	return nil
}
