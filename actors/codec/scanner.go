package codec

import (
	"fmt"

	"github.com/doppel-iot/doppel/actors/twin"
)

// scanner reads strict JSON (RFC 8259) in one pass without allocating. The first thing wrong with the
// syntax is kept in problem and puts the position at the end, so callers may ask once, at their end.
type scanner struct {
	b       []byte
	i       int
	tmp     []byte // the last string that had escapes
	problem string
}

// maxNesting bounds what is skipped, and with it the stack.
const maxNesting = 64

func (s *scanner) reset(b []byte) {
	s.b, s.i, s.problem = b, 0, ""
}

func (s *scanner) fail(format string, args ...any) {
	if s.problem == "" {
		s.problem = fmt.Sprintf("byte %d: ", s.i) + fmt.Sprintf(format, args...)
	}
	s.i = len(s.b)
}

// peek is the next byte that is not white space, 0 at the end.
func (s *scanner) peek() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return c
		}
	}
	return 0
}

// expected fails with what stands at the position instead of what.
func (s *scanner) expected(what string) {
	switch {
	case s.i >= len(s.b):
		s.fail("expected %s, got the end", what)
	default:
		s.fail("expected %s, got %q", what, rune(s.b[s.i]))
	}
}

// key reads a member's name and the colon, or the end of the object (false, as after an error). first:
// the opening brace was just read. The name is valid until the next string is read.
func (s *scanner) key(first bool) ([]byte, bool) {
	c := s.peek()
	if c == '}' {
		s.i++
		return nil, false
	}
	if !first {
		if c != ',' {
			s.expected("',' or '}'")
			return nil, false
		}
		s.i++
		c = s.peek()
	}
	if c != '"' {
		s.expected("a member name")
		return nil, false
	}
	k := s.str()
	if s.peek() != ':' {
		s.expected("':'")
		return nil, false
	}
	s.i++
	s.peek()
	return k, true
}

// element says whether an array goes on; first: the opening bracket was just read.
func (s *scanner) element(first bool) bool {
	c := s.peek()
	if c == ']' {
		s.i++
		return false
	}
	if first {
		return s.problem == ""
	}
	if c != ',' {
		s.expected("',' or ']'")
		return false
	}
	s.i++
	s.peek()
	return true
}

// word reads true, false or null, whose first byte is next.
func (s *scanner) word(w string) {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		s.fail("expected %s", w)
		return
	}
	s.i += len(w)
}

// skip reads any value and gives its bytes.
func (s *scanner) skip() []byte {
	s.peek()
	start := s.i
	s.value(0)
	if s.problem != "" {
		return nil
	}
	return s.b[start:s.i:s.i]
}

func (s *scanner) value(depth int) {
	if depth > maxNesting {
		s.fail("nested deeper than %d levels", maxNesting)
		return
	}
	switch c := s.peek(); c {
	case '{':
		s.i++
		for first := true; ; first = false {
			if _, more := s.key(first); !more {
				return
			}
			s.value(depth + 1)
		}
	case '[':
		s.i++
		for first := true; s.element(first); first = false {
			s.value(depth + 1)
		}
	case '"':
		s.str()
	case 't':
		s.word("true")
	case 'f':
		s.word("false")
	case 'n':
		s.word("null")
	default:
		if c != '-' && (c < '0' || c > '9') {
			s.expected("a value")
			return
		}
		s.number()
	}
}

// close checks that the document ends here, and its syntax.
func (s *scanner) close() *Refusal {
	s.peek()
	if s.problem == "" && s.i < len(s.b) {
		s.fail("data behind the JSON object")
	}
	if s.problem != "" {
		return refuse(twin.NotDecodable, "not JSON: %s", s.problem)
	}
	return nil
}

// kind names the value that begins at the position, for people.
func (s *scanner) kind() string {
	switch c := s.peek(); c {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		if c == '-' || c >= '0' && c <= '9' {
			return "a number"
		}
	}
	return "nothing"
}
