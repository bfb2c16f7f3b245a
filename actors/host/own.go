package host

import "context"

// tenure is one stretch in which this node owns a partition, from Own to Release or Drop.
type tenure struct {
	leave   context.CancelFunc // take no more input, finish what is under way, and let go (O9)
	abandon context.CancelFunc // let go at once
	done    chan struct{}      // closed when it is over
	leaving bool               // under the partition's mu
}

// Own makes this node own partition p: it claims, restores and serves it, and claims again after losing
// an epoch, until Release or Drop. Where it owns p already nothing happens; while it lets go of p, it
// owns it anew afterwards.
func (h *Host) Own(p int32) { h.parts[p].own() }

// Release lets go of partition p in order: no more input, what is in flight is waited for, checkpoints
// of what changed and a floor spare the next owner work. Messages that wait are given back (NotOwner).
// It returns when p is let go, after some seconds at most whatever the log does. When ctx ends first it
// is as if dropped, and the answer is ctx's error.
func (h *Host) Release(ctx context.Context, p int32) error {
	t := h.parts[p].leave()
	if t == nil {
		return nil
	}
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		t.abandon()
		return ctx.Err()
	}
}

// Drop lets go of partition p at once: what is in flight is left to the log and to the next owner. It
// does not wait for the end.
func (h *Host) Drop(p int32) {
	if t := h.parts[p].leave(); t != nil {
		t.abandon()
	}
}

// Failed delivers the first error of a partition that refuses to serve, because the log contradicts
// itself and serving would lose data (S1, G5). The partition is let go of; the others are not touched.
func (h *Host) Failed() <-chan error { return h.failed }

// Serve owns partitions ids and returns when ctx has ended, or one has failed, and all that the host
// owns, by Own too, is let go of in order. It takes what Failed delivers.
func (h *Host) Serve(ctx context.Context, ids []int32) error {
	for _, id := range ids {
		h.Own(id) //nolint:contextcheck // it ends by Release
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-h.failed:
	}
	var leaving []*tenure
	for _, p := range h.parts {
		if t := p.leave(); t != nil {
			leaving = append(leaving, t)
		}
	}
	for _, t := range leaving {
		<-t.done
	}
	return err
}

func (p *partition) own() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.tenure == nil:
		p.begin()
	case p.tenure.leaving:
		p.again = true
	}
}

// leave ends the tenure, if there is one, in order.
func (p *partition) leave() *tenure {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tenure
	p.again = false
	if p.warm != nil {
		p.warm.cancel()
		p.warm = nil
	}
	if t != nil {
		t.leaving = true
		t.leave()
	}
	return t
}

// owned says whether the node means to serve the partition.
func (p *partition) owned() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tenure != nil && (!p.tenure.leaving || p.again)
}

// begin starts a tenure; mu is held.
func (p *partition) begin() {
	work, abandon := context.WithCancel(context.Background())
	ctx, leave := context.WithCancel(work)
	t := &tenure{leave: leave, abandon: abandon, done: make(chan struct{})}
	p.tenure = t
	p.box.open()
	p.host.launch(ctx, work, p, func(err error) {
		abandon()
		p.over(t, err)
	})
}

// launch is how a partition is served outside simulations.
func launch(ctx, work context.Context, p *partition, over func(error)) {
	go func() { over(p.run(ctx, work)) }()
}

// over notes that t has ended.
func (p *partition) over(t *tenure, err error) {
	if err != nil {
		p.host.fail(p.id, err)
	}
	p.mu.Lock()
	p.tenure = nil
	if p.again {
		p.again = false
		p.begin()
	}
	p.mu.Unlock()
	close(t.done)
}

func (h *Host) fail(p int32, err error) {
	h.log.Error("partition is not served", "partition", p, "err", err)
	select {
	case h.failed <- err:
	default: // one is enough to end a node
	}
}
