package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/doppel-iot/doppel/actors/host"
)

// ErrCursorsReset says that somebody has forgotten or set back what was saved last: it is to be loaded
// again.
var ErrCursorsReset = errors.New("cursors were reset")

// refreshCursors is how often those that do not move are committed again: brokers forget commits of
// a group without members after a week.
const refreshCursors = 12 * time.Hour

// RowCursors keeps how far a time series store has the rows of each partition of doppel.telemetry, as
// the commits of a consumer group without members, so that the next owner of a partition finds them.
// The commit's metadata is the epoch and count in force there (rule R4).
type RowCursors struct {
	client *Client
	group  string

	mu        sync.Mutex
	last      map[int32]host.Cursor // loaded or saved last
	refreshed time.Time             // when all of last were committed
}

// RowCursors are the cursors of a group of nodes.
func (c *Client) RowCursors(group string) *RowCursors {
	return &RowCursors{client: c, group: group, last: map[int32]host.Cursor{}, refreshed: time.Now()}
}

// Load gives the cursors saved last, by whichever node.
func (r *RowCursors) Load(ctx context.Context) (map[int32]host.Cursor, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cursors, err := r.fetch(ctx)
	if err != nil {
		return nil, err
	}
	clear(r.last)
	maps.Copy(r.last, cursors)
	return cursors, nil
}

// Save replaces the cursors of the partitions given, but for those that another node has moved further.
// It answers ErrCursorsReset, and saves nothing, where one stands before what was loaded or saved here.
func (r *RowCursors) Save(ctx context.Context, cursors map[int32]host.Cursor) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	stored, err := r.fetch(ctx)
	if err != nil {
		return err
	}
	refresh := time.Since(r.refreshed) >= refreshCursors
	commit := kadm.Offsets{}
	add := func(p int32, c host.Cursor) {
		commit.Add(kadm.Offset{Topic: r.client.topics.Telemetry, Partition: p, At: c.Next, LeaderEpoch: -1, Metadata: metadata(c)})
	}
	for p, c := range cursors {
		at, ok := stored[p]
		if before, known := r.last[p]; known && (!ok || at.Next < before.Next) {
			return fmt.Errorf("cursor of p%d in group %s: %w", p, r.group, ErrCursorsReset)
		}
		if !ok || at.Next < c.Next {
			add(p, c)
		}
	}
	if refresh {
		for p, c := range stored {
			if _, moved := cursors[p]; !moved {
				add(p, c)
			}
		}
	}
	if len(commit) > 0 {
		if err := r.client.adm.CommitAllOffsets(ctx, r.group, commit); err != nil {
			return fmt.Errorf("save cursors of group %s: %w", r.group, err)
		}
	}
	for p, c := range cursors {
		if at, ok := stored[p]; ok && at.Next > c.Next {
			c = at
		}
		r.last[p] = c
	}
	if refresh {
		r.refreshed = time.Now()
	}
	return nil
}

// Reset forgets all cursors, for all nodes.
func (r *RowCursors) Reset(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.client.adm.DeleteGroup(ctx, r.group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("reset cursors of group %s: %w", r.group, err)
	}
	clear(r.last)
	return nil
}

// fetch reads the commits. One that is not ours counts as none.
func (r *RowCursors) fetch(ctx context.Context) (map[int32]host.Cursor, error) {
	offsets, err := r.client.adm.FetchOffsets(ctx, r.group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return map[int32]host.Cursor{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cursors of group %s: %w", r.group, err)
	}
	cursors := map[int32]host.Cursor{}
	for p, o := range offsets[r.client.topics.Telemetry] {
		if o.Err != nil {
			return nil, fmt.Errorf("cursor of p%d in group %s: %w", p, r.group, o.Err)
		}
		c := host.Cursor{Next: o.At}
		if o.At < 0 || !parseMetadata(o.Metadata, &c) {
			continue
		}
		cursors[p] = c
	}
	return cursors, nil
}

func metadata(c host.Cursor) string { return fmt.Sprintf("%d/%d", c.Epoch, c.N) }

func parseMetadata(s string, c *host.Cursor) bool {
	n, err := fmt.Sscanf(s, "%d/%d", &c.Epoch, &c.N)
	return err == nil && n == 2 && !strings.ContainsAny(s, " \n")
}
