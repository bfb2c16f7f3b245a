package query

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/doppel-iot/doppel/actors/host"
	"github.com/doppel-iot/doppel/cluster/placement"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// partition is that of a device.
func (r *Reader) partition(id string) int32 { return placement.Partition([]byte(id), r.cfg.Partitions) }

// Twin returns one twin, or host.ErrUnknownDevice.
func (r *Reader) Twin(ctx context.Context, id string) (*doppelv1.Twin, error) {
	var twins []*doppelv1.Twin
	err := host.ErrUnavailable
	if p := r.partition(id); r.cfg.Route(p).Local { // the most frequent question has the shortest way
		twins, err = r.cfg.Host.Twins(ctx, p, []string{id})
	}
	if notServed(err) {
		twins, err = r.Twins(ctx, []string{id})
	}
	if err == nil && len(twins) == 0 {
		err = host.ErrUnknownDevice
	}
	if err != nil {
		return nil, fmt.Errorf("twin %q: %w", id, err)
	}
	return twins[0], nil
}

// Twins returns those of the ids that exist. With a host.ErrUnavailable come those of the partitions
// that could be read.
func (r *Reader) Twins(ctx context.Context, ids []string) ([]*doppelv1.Twin, error) {
	devices := make(map[int32][]string)
	var ps []int32
	for _, id := range ids {
		p := r.partition(id)
		if devices[p] == nil {
			ps = append(ps, p)
		}
		devices[p] = append(devices[p], id)
	}
	var mu sync.Mutex
	var all []*doppelv1.Twin
	add := func(twins []*doppelv1.Twin) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, twins...)
	}
	err := r.ask(ctx, ps, func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) error {
				twins, err := r.cfg.Host.Twins(ctx, p, devices[p])
				add(twins)
				return err
			})
		}
		return r.soon(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			req := &doppelv1.ReadTwinsRequest{}
			for _, p := range ps {
				req.Partitions = append(req.Partitions, &doppelv1.PartitionDevices{Partition: p, Devices: devices[p]})
			}
			s, err := c.ReadTwins(ctx, req)
			if err != nil {
				return m, err
			}
			var twins []*doppelv1.Twin
			for {
				resp, err := s.Recv()
				if err == io.EOF { //nolint:errorlint // Recv returns it bare
					add(twins)
					return m, nil
				}
				if err != nil {
					return m, err // what came is left out: it is asked again
				}
				twins = append(twins, resp.GetTwins()...)
				m.partitions = append(m.partitions, resp.GetNotServed()...)
			}
		})
	})
	return all, err
}

// TwinAsOf returns one twin as it was.
func (r *Reader) TwinAsOf(ctx context.Context, id string, at host.AsOf) (t *doppelv1.Twin, err error) {
	p := r.partition(id)
	err = r.ask(ctx, []int32{p}, func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) (err error) {
				t, err = r.cfg.Host.TwinAsOf(ctx, p, id, at)
				return err
			})
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			resp, err := c.ReadPast(ctx, &doppelv1.ReadPastRequest{Partition: p, Device: id, Version: at.Version, TimeUnixNano: at.Time})
			t = resp.GetTwin()
			return m, err
		})
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Replay folds the log of a twin again and compares.
func (r *Reader) Replay(ctx context.Context, id string) (got host.Replay, err error) {
	p := r.partition(id)
	err = r.ask(ctx, []int32{p}, func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) (err error) { got, err = r.cfg.Host.Replay(ctx, p, id); return err })
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			resp, err := c.ReplayLog(ctx, &doppelv1.ReplayLogRequest{Partition: p, Device: id})
			if err != nil {
				return m, err
			}
			v := resp.GetReplay()
			got = host.Replay{
				Equal: v.GetEqual(), Difference: v.GetDifference(), Inputs: v.GetInputs(), Version: v.GetVersion(), Hash: v.GetStateHash(), Next: int64(v.GetNextOffset()),
				Start: host.FoldStart{Kind: v.GetStart(), Offset: int64(v.GetStartOffset()), Version: v.GetStartVersion()},
			}
			return m, nil
		})
	})
	return got, err
}

// Reset lifts a twin's quarantine or lets its device number anew; see host.Host.Reset.
func (r *Reader) Reset(ctx context.Context, id string) error {
	p := r.partition(id)
	err := r.ask(ctx, []int32{p}, func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) error { return r.cfg.Host.Reset(ctx, p, id) })
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			_, err = c.Reset(ctx, &doppelv1.ResetRequest{Partition: p, Device: id})
			return m, err
		})
	})
	if err != nil {
		return fmt.Errorf("reset %q: %w", id, err)
	}
	return nil
}
