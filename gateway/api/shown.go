package api

import "github.com/cespare/xxhash/v2"

// shownMost bounds what is remembered for one subscriber, about 3 MB.
const shownMost = 100_000

// shownTwins is which twins a subscriber with a filter has been shown, so that it hears of those that do not pass
// any more and of no others. Where that is not known, behind a token or of too many twins, it hears of one too
// many. Nil: there is no filter, and everything is shown.
type shownTwins struct {
	in      map[uint64]bool // by hash of the id; false: it was told that it is gone
	unknown bool            // of those that are not in it
}

// begin forgets all: a snapshot follows, which tells what there is.
func (s *shownTwins) begin() {
	if s != nil {
		s.in, s.unknown = nil, false
	}
}

// enters notes that a twin was shown.
func (s *shownTwins) enters(id string) {
	if s != nil {
		s.note(id, true)
	}
}

// leaves notes that a twin is gone, and says whether that is to be told.
func (s *shownTwins) leaves(id string) bool {
	if s == nil {
		return true
	}
	shown, known := s.in[xxhash.Sum64String(id)]
	if !known {
		shown = s.unknown
	}
	if shown && s.unknown {
		s.note(id, false)
	} else if shown {
		delete(s.in, xxhash.Sum64String(id))
	}
	return shown
}

func (s *shownTwins) note(id string, shown bool) {
	if len(s.in) >= shownMost {
		s.in, s.unknown = nil, true
	}
	if s.in == nil {
		s.in = make(map[uint64]bool)
	}
	s.in[xxhash.Sum64String(id)] = shown
}
