package node

import (
	"context"

	"github.com/doppel-iot/doppel/actors/history"
	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
	"github.com/doppel-iot/doppel/storage/questdb"
)

// newHistory reads what metrics were: from QuestDB if there is one, and from the log. Every node can do
// that for every device.
func (a *assembly) newHistory() (*history.Reader, error) {
	cfg := history.Config{
		Log:       a.storage.Changelog(),
		Partition: func(device string) int32 { return placement.Partition([]byte(device), a.storage.Partitions()) },
		Logger:    a.log.With("component", "history"),
	}
	if a.rows != nil {
		r, err := questdb.NewReader(a.locks.questdb, a.locks.certs.Client)
		if err != nil {
			return nil, err
		}
		store := rowStore{Reader: r, settled: a.settledHere}
		if a.cluster != nil {
			store.settled = a.settledAnywhere
		}
		cfg.Store = store
	}
	return history.New(cfg), nil
}

// rowStore is QuestDB, and how far it is.
type rowStore struct {
	*questdb.Reader
	settled func(ctx context.Context, p int32) (host.Cursor, bool, error)
}

// Settled implements history.Store.
func (s rowStore) Settled(ctx context.Context, p int32) (host.Cursor, bool, error) {
	return s.settled(ctx, p)
}

func (a *assembly) settledHere(_ context.Context, p int32) (host.Cursor, bool, error) {
	c, ok := a.rows.Settled(p)
	return c, ok, nil
}

// settledAnywhere asks the log, where each owner's writer leaves its cursors.
func (a *assembly) settledAnywhere(ctx context.Context, p int32) (host.Cursor, bool, error) {
	all, err := a.storage.RowCursors(a.rowGroup()).Load(ctx)
	c, ok := all[p]
	return c, ok, err
}

// rowGroup is the consumer group whose commits are the cursors of QuestDB.
func (a *assembly) rowGroup() string { return a.cfg.Group + "-questdb" }
