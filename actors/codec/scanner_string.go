package codec

import (
	"unicode/utf16"
	"unicode/utf8"
)

// str reads a string, whose quote is next, and gives it unescaped.
func (s *scanner) str() []byte {
	s.i++
	start := s.i
	var high byte
	for i := start; i < len(s.b); i++ {
		c := s.b[i]
		switch {
		case c == '"':
			s.i = i + 1
			if high >= utf8.RuneSelf && !utf8.Valid(s.b[start:i]) {
				s.i = start
				s.fail("the string is not UTF-8")
				return nil
			}
			return s.b[start:i:i]
		case c == '\\':
			return s.escaped(start, i)
		case c < ' ':
			s.i = i
			s.fail("control character in a string")
			return nil
		}
		high |= c
	}
	s.i = len(s.b)
	s.fail("the string has no end")
	return nil
}

// escaped goes on where str met the first backslash.
func (s *scanner) escaped(start, i int) []byte {
	out := s.tmp[:0]
	out = append(out, s.b[start:i]...)
	for i < len(s.b) {
		c := s.b[i]
		s.i = i
		switch {
		case c == '"':
			s.i = i + 1
			s.tmp = out
			if !utf8.Valid(out) {
				s.fail("the string is not UTF-8")
				return nil
			}
			return out
		case c < ' ':
			s.fail("control character in a string")
			return nil
		case c != '\\':
			out = append(out, c)
			i++
			continue
		}
		if i+1 == len(s.b) {
			break
		}
		i += 2
		switch e := s.b[i-1]; e {
		case '"', '\\', '/':
			out = append(out, e)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, n := unicodeEscape(s.b[i:])
			if n == 0 {
				s.fail(`a \u escape needs four hex digits, and a surrogate its other half`)
				return nil
			}
			out = utf8.AppendRune(out, r)
			i += n
		default:
			s.fail("unknown escape %q in a string", s.b[i-2:i])
			return nil
		}
	}
	s.i = len(s.b)
	s.fail("the string has no end")
	return nil
}

// unicodeEscape reads what follows \u, both halves of a surrogate pair, and says how many bytes that
// were; 0: it is wrong.
func unicodeEscape(b []byte) (rune, int) {
	r, ok := hex4(b)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(r) {
		return r, 4
	}
	if len(b) < 10 || b[4] != '\\' || b[5] != 'u' {
		return 0, 0
	}
	low, ok := hex4(b[6:])
	if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
		return 0, 0
	}
	return r, 10
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		r <<= 4
		switch {
		case '0' <= c && c <= '9':
			r |= rune(c - '0')
		case 'a' <= c && c <= 'f':
			r |= rune(c - 'a' + 10)
		case 'A' <= c && c <= 'F':
			r |= rune(c - 'A' + 10)
		default:
			return 0, false
		}
	}
	return r, true
}
