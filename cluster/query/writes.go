package query

import (
	"context"
	"fmt"

	"github.com/doppel-iot/doppel/actors/host"
	doppelv1 "github.com/doppel-iot/doppel/proto/doppel/v1"
)

// Update changes what people want of a device and say of it; see host.Host.Update. When the node that serves it
// goes away meanwhile, the change may be made although an error says that it was not: made again, it is the same.
func (r *Reader) Update(ctx context.Context, u host.Update) (t *doppelv1.Twin, err error) {
	p := r.partition(u.Device)
	err = r.ask(ctx, []int32{p}, func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) (err error) {
				t, err = r.cfg.Host.Update(ctx, p, u)
				return err
			})
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			resp, err := c.WriteTwin(ctx, &doppelv1.WriteTwinRequest{Partition: p, Device: u.Device, Etag: u.Etag, Write: &doppelv1.WriteTwinRequest_Update{
				Update: &doppelv1.UpdateWrite{
					Desired: u.Desired, Tags: u.Tags, ReplaceTags: u.ReplaceTags, RemovedTags: u.RemovedTags, AllowMissing: u.AllowMissing,
				},
			}})
			t = resp.GetTwin()
			return m, err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("update twin %q: %w", u.Device, err)
	}
	return t, nil
}

// Delete deletes a twin; see host.Host.Delete.
func (r *Reader) Delete(ctx context.Context, id, etag string) error {
	p := r.partition(id)
	err := r.ask(ctx, []int32{p}, func(ctx context.Context, to Route, ps []int32) (missed, error) {
		if to.Local {
			return each(ctx, ps, func(ctx context.Context, p int32) error { return r.cfg.Host.Delete(ctx, p, id, etag) })
		}
		return r.remote(ctx, to.Address, ps, func(ctx context.Context, c doppelv1.QueryServiceClient) (m missed, err error) {
			_, err = c.WriteTwin(ctx, &doppelv1.WriteTwinRequest{Partition: p, Device: id, Etag: etag, Write: &doppelv1.WriteTwinRequest_Delete{
				Delete: &doppelv1.DeleteWrite{},
			}})
			return m, err
		})
	})
	if err != nil {
		return fmt.Errorf("delete twin %q: %w", id, err)
	}
	return nil
}

// update is WriteTwin of an update.
func (s *Server) update(ctx context.Context, req *doppelv1.WriteTwinRequest, w *doppelv1.UpdateWrite) (*doppelv1.WriteTwinResponse, error) {
	t, err := s.host.Update(ctx, req.GetPartition(), host.Update{
		Device: req.GetDevice(), Etag: req.GetEtag(), Desired: w.GetDesired(), Tags: w.GetTags(), ReplaceTags: w.GetReplaceTags(),
		RemovedTags: w.GetRemovedTags(), AllowMissing: w.GetAllowMissing(),
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return &doppelv1.WriteTwinResponse{Twin: t}, nil
}
