package remote

import "time"

// loop delivers what this node tells itself.
func (p *peer) loop() {
	in := p.r.newInbound()
	in.from = p.address
	for {
		c, ok := p.take()
		if !ok {
			select {
			case <-p.wake:
				continue
			case <-p.r.stopping.Done():
				if c, ok = p.take(); !ok {
					return
				}
			case <-p.life.Done():
				return
			}
		}
		n := len(*c.bytes)
		p.r.stats.Batches.Add(1)
		p.r.stats.Sent.Add(uint64(c.messages))
		p.r.stats.SentBytes.Add(uint64(n))
		p.heard.Store(time.Now().UnixNano())
		if _, err := in.take(*c.bytes); err != nil {
			p.r.log.Error("own batch is malformed", "err", err)
		}
		p.refused(in.refusals)
		p.done(n)
		p.r.chunks.Put(c.bytes)
	}
}
