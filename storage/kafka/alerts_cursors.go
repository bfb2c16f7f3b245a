package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/doppel-iot/doppel/actors/host"
)

// AlertCursors keeps how far a reader of doppel.alerts is with each partition, as the commits of a consumer
// group without members: whichever node reads next finds them. The commit's metadata is the place of the
// newest transition met.
type AlertCursors struct {
	client *Client
	group  string
}

// AlertCursors are the cursors of a group.
func (c *Client) AlertCursors(group string) *AlertCursors {
	return &AlertCursors{client: c, group: group}
}

// Load gives the places saved last, by whichever node.
func (c *AlertCursors) Load(ctx context.Context) (map[int32]host.AlertPlace, error) {
	offsets, err := c.client.adm.FetchOffsets(ctx, c.group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return map[int32]host.AlertPlace{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cursors of group %s: %w", c.group, err)
	}
	places := map[int32]host.AlertPlace{}
	for p, o := range offsets[c.client.topics.Alerts] {
		if o.Err != nil {
			return nil, fmt.Errorf("cursor of p%d in group %s: %w", p, c.group, o.Err)
		}
		at := host.AlertPlace{Next: o.At}
		if o.At < 0 || !parsePlace(o.Metadata, &at) {
			continue
		}
		places[p] = at
	}
	return places, nil
}

// Save replaces the places of the partitions given.
func (c *AlertCursors) Save(ctx context.Context, places map[int32]host.AlertPlace) error {
	commit := kadm.Offsets{}
	for p, at := range places {
		commit.Add(kadm.Offset{
			Topic: c.client.topics.Alerts, Partition: p, At: at.Next, LeaderEpoch: -1, Metadata: fmt.Sprintf("%d/%d", at.Offset, at.Index),
		})
	}
	if err := c.client.adm.CommitAllOffsets(ctx, c.group, commit); err != nil {
		return fmt.Errorf("save cursors of group %s: %w", c.group, err)
	}
	return nil
}

func parsePlace(s string, at *host.AlertPlace) bool {
	n, err := fmt.Sscanf(s, "%d/%d", &at.Offset, &at.Index)
	return err == nil && n == 2 && !strings.ContainsAny(s, " \n")
}
