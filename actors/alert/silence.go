package alert

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Silence keeps people from being notified of the alerts it matches, until it ends. It is a field of those
// alerts and changes nothing else about them.
type Silence struct {
	ID string
	// Match is given a *View. One that fails matches nothing.
	Match Predicate
	End   int64 // unix nanoseconds of logged time
}

// View is what a silence sees of an alert. The alert is as it stands after its transition, but not silenced;
// the tags are the twin's.
type View struct {
	Device string
	Tags   map[string]string
	Alert  *Alert
}

var errNoMatch = errors.New("filter: it has not been compiled")

func (s *Set) silence(all []Silence) error {
	s.silences = slices.Clone(all)
	slices.SortFunc(s.silences, func(a, b Silence) int { return cmp.Compare(a.ID, b.ID) })
	for i := range s.silences {
		one := &s.silences[i]
		switch {
		case one.ID == "" || i > 0 && one.ID == s.silences[i-1].ID:
			return fmt.Errorf("silence %q: id: want one of its own", one.ID)
		case one.Match == nil:
			return fmt.Errorf("silence %q: %w", one.ID, errNoMatch)
		}
	}
	s.timers = s.timers || len(s.silences) > 0
	return nil
}

// holding is the id of the silence that holds an alert at now: of several the first by id; empty: none.
func (s *Set) holding(device string, tags map[string]string, a *Alert, now int64) string {
	if len(s.silences) == 0 {
		return ""
	}
	seen := *a
	seen.Silence, seen.Tags = "", tags
	v := &View{Device: device, Tags: tags, Alert: &seen}
	for i := range s.silences {
		one := &s.silences[i]
		if one.End <= now {
			continue
		}
		if holds, err := one.Match.Holds(v); err == nil && holds {
			return one.ID
		}
	}
	return ""
}

// ends is when a silence does; never, if there is none of this id.
func (s *Set) ends(id string) int64 {
	i, ok := slices.BinarySearchFunc(s.silences, id, func(one Silence, id string) int { return cmp.Compare(one.ID, id) })
	if !ok {
		return never
	}
	return s.silences[i].End
}
