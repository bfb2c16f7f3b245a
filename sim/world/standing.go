package world

import (
	"fmt"
	"strings"
)

// lack names the first thing that a world waits for.
func (w *World) lack() string {
	for _, s := range w.shards {
		p := w.server(s.id)
		switch j := s.judge; {
		case p == nil:
			return "nobody serves"
		case p.steps.Ingested(s.id) < s.ingest.end():
			return "ingest is not handled"
		case j.told < len(j.real):
			return "transitions are not published"
		case p.steps.Next(s.id) != s.log.end():
			return "an owner does not know the end of its log"
		}
	}
	for _, d := range w.loads {
		switch {
		case len(d.unsent) > 0:
			return "devices cannot publish"
		case !w.shards[d.part].judge.has(d):
			return "samples took no effect"
		}
	}
	if untold := w.untold(); untold != "" {
		return untold
	}
	return "messages are not acknowledged"
}

// standing says how far everything is.
func (w *World) standing() string {
	var b strings.Builder
	for _, d := range w.loads {
		fmt.Fprintf(&b, "%s: %d unsent, all applied %t; ", d.id, len(d.unsent), w.shards[d.part].judge.has(d))
	}
	for _, n := range w.nodes {
		if s := n.session; s != nil {
			fmt.Fprintf(&b, "session of %s: %d, held %t; ", n.name, len(s.entries), s.holder != nil)
		}
		if p := n.p; p != nil {
			fmt.Fprintf(&b, "%s: fresh %t member %t tries %d, leaving %t; ", n.name, p.fresh, w.member(p), len(p.tries), p.leaving)
			for i := range w.shards {
				v := p.host.Partition(int32(i))
				fmt.Fprintf(&b, "%d %s to %d; ", i, v.State, v.Next)
			}
		}
	}
	for _, s := range w.shards {
		j := s.judge
		fmt.Fprintf(&b, "partition %d: log %d, ingest %v of %d, told %d of %d", s.id, s.log.end(), j.src, s.ingest.end(), j.told, len(j.real))
		for id, tw := range j.twins {
			if tw.HeldSince() != 0 {
				fmt.Fprintf(&b, ", %s holds", id)
			}
		}
		b.WriteString("; ")
	}
	fmt.Fprintf(&b, "table %v", w.group.table.Owners)
	return b.String()
}
