package twin

import (
	"encoding/binary"
	"time"

	"github.com/doppel-iot/doppel/actors/alert"
	"github.com/doppel-iot/doppel/actors/sequence"
)

// remembered is for how long the numbering of a deleted twin is kept, by logged time.
const remembered = int64(24 * time.Hour)

// death is what is kept of a twin that was deleted, and of its former lives for one that came back: its
// numbering for a day (in the twin itself), its version and how many samples have rows for ever.
type death struct {
	at    int64  // when it was deleted; 0: it is back
	bare  bool   // its numbering is forgotten
	lives uint64 // that ended
	rows  uint64 // samples applied or late in them
}

// Deleted says that the twin does not exist for anybody: only its numbering is remembered.
func (t *Twin) Deleted() bool { return t.death != nil && t.death.at != 0 }

// FormerRows are the samples applied or late in lives that a delete has ended.
func (t *Twin) FormerRows() uint64 {
	if t.death == nil {
		return 0
	}
	return t.death.rows
}

// Lives says how many lives of the twin a delete has ended.
func (t *Twin) Lives() uint64 {
	if t.death == nil {
		return 0
	}
	return t.death.lives
}

// stepDeleted ends the twin. What was accepted and waits is applied first, as nobody will see it otherwise; open
// alerts resolve. What then is left knows the numbers that were taken, so that nothing that was sent before
// brings the twin back.
func (t *Twin) stepDeleted(s *step) Outcome {
	if t.Deleted() || t.version == 0 {
		return Unchanged
	}
	t.applyWaiting(s)
	t.book.Close(s.rules, t.id, s.now, &s.out.Transitions)
	s.out.Tell = t.DesiredVersion() > 0
	d := t.death
	if d == nil {
		d = &death{}
	}
	d.at, d.bare = s.now, false
	d.lives++
	d.rows += t.counters.Applied + t.counters.Late
	*t = Twin{
		id: t.id, version: t.version, created: t.created, duplicates: t.duplicates, death: d,
		numbers: t.numbers, timed: t.timed, patches: t.patches, status: t.status,
	}
	return Applied
}

// buried is the kind as which a deleted twin takes an input; 0: it does not. Samples, patches and statuses bring
// it back where they are accepted, not here.
func (t *Twin) buried(s *step, in *Input) Kind {
	switch in.Kind {
	case KindSample, KindReported, KindDesired, KindAnchor:
		return in.Kind
	case KindRefused, KindGap, KindTick: // of its numbering; there is nobody to be alarmed about
		s.rules = &alert.Set{}
		return in.Kind
	case KindStatus:
		if t.status != nil && t.status.provablyOlder(&in.Status) || t.status == nil && in.ReceivedAt > t.death.at {
			if in.Status.Online {
				t.revive(s)
				return in.Kind
			}
		}
	case KindQuarantined: // so that people see it
		t.revive(s)
		return in.Kind
	default: // what is said of a twin that is there
	}
	return 0
}

// provablyOlder goes by sessions alone: a retained status comes again at any time.
func (l *status) provablyOlder(st *Status) bool {
	return l.HasSession && st.HasSession && (l.Boot < st.Boot || l.Boot == st.Boot && l.Session < st.Session)
}

// revive makes a fresh twin of a deleted one, which goes on with its numbering and its version.
func (t *Twin) revive(s *step) {
	t.death.at, t.death.bare = 0, false
	t.created, t.lastSeen, t.lastData = s.now, 0, 0
	t.counters, t.book = Counters{}, alert.Book{}
}

// forgetDue is when the numbering of a deleted twin is to be forgotten; 0: it is not, or is already.
func (t *Twin) forgetDue() int64 {
	if !t.Deleted() || t.death.bare {
		return 0
	}
	return t.death.at + remembered
}

// forget ends the memory of a deleted twin when its time has come.
func (t *Twin) forget(s *step) bool {
	due := t.forgetDue()
	if due == 0 || s.now < due {
		return false
	}
	t.numbers = sequence.Sequencer[*waiting]{}
	t.timed, t.patches, t.status, t.counters = nil, nil, nil, Counters{}
	t.boot, t.seq = 0, 0
	t.death.bare = true
	return true
}

// foundMissing notes that a number given up on has come after all. It may have been given up on in a life before
// this one.
func (t *Twin) foundMissing() {
	if t.counters.Missing > 0 {
		t.counters.Missing--
	}
}

func (d *death) appendState(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(d.at))
	b = appendBool(b, d.bare)
	b = le.AppendUint64(b, d.lives)
	return le.AppendUint64(b, d.rows)
}
