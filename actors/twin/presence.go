package twin

import "github.com/doppel-iot/doppel/actors/alert"

// staleRule is the rule whose firing means that data stays away.
const staleRule = "builtin.stale"

// status is the last accepted word of the device or its last will on its connection.
type status struct {
	Status
	receivedAt int64
}

// stepStatus takes a status unless it is older than the last one, or says the same again: retained
// ones come anew with every sweep.
func (t *Twin) stepStatus(s *step, in *Input) Outcome {
	if last := t.status; last != nil {
		if last.newerThan(&in.Status, in.ReceivedAt) {
			return Unchanged
		}
		if last.Status == in.Status && (in.Status.HasSession || t.online == in.Status.Online) {
			return Unchanged
		}
	}
	t.release(s)
	t.status = &status{Status: in.Status, receivedAt: in.ReceivedAt}
	t.lastSeen = max(t.lastSeen, in.ReceivedAt)
	t.online = in.Status.Online
	s.arrived = t.online
	t.book.Presence(s.rules, t.id, t.online, s.now, &s.out.Transitions)
	return Applied
}

// newerThan orders by (boot, session) if both have a session; else, and within one session, by when
// the first node received them.
func (l *status) newerThan(st *Status, receivedAt int64) bool {
	if l.HasSession && st.HasSession {
		if l.Boot != st.Boot {
			return l.Boot > st.Boot
		}
		if l.Session != st.Session {
			return l.Session > st.Session
		}
	}
	return l.receivedAt > receivedAt
}

// noteData takes an accepted, not late, sample as a sign of life, unless it was received before the
// last word that the device is gone.
func (t *Twin) noteData(s *step, receivedAt int64) {
	if t.online || t.status != nil && !t.status.Online && receivedAt <= t.status.receivedAt {
		return
	}
	t.online, s.arrived = true, true
	t.book.Presence(s.rules, t.id, true, s.now, &s.out.Transitions)
}

// noteStale takes a device that never said whether it is connected for offline once its data stays
// away.
func (t *Twin) noteStale(s *step) {
	if t.status != nil || !t.online {
		return
	}
	for i := range s.out.Transitions {
		if a := &s.out.Transitions[i]; a.State == alert.Firing && a.Rule == staleRule && !a.Shadow {
			t.online = false
		}
	}
}
