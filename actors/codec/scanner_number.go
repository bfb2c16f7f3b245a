package codec

import (
	"math"
	"strconv"
)

// number is a JSON number: its digits as an integer, if it is one, and what a float needs.
type number struct {
	integer
	exponent int // of ten
	digits   int // read into abs, leading zeros not counted
}

// number reads a number, whose first byte (a digit or a minus) is next.
func (s *scanner) number() number {
	var n number
	start := s.i
	if s.b[s.i] == '-' {
		n.negative = true
		s.i++
	}
	switch c := s.next(); {
	case c == '0':
		s.i++
	case '1' <= c && c <= '9':
		n.digits += s.digits(&n.integer)
	default:
		s.expected("a digit")
		return number{}
	}
	if s.next() == '.' {
		s.i++
		n.fraction = true
		before := s.i
		k := s.digits(&n.integer)
		if s.i == before {
			s.expected("a digit")
			return number{}
		}
		n.digits += k
		n.exponent = before - s.i
	}
	if c := s.next(); c == 'e' || c == 'E' {
		s.i++
		n.fraction = true
		if !s.exponent(&n) {
			return number{}
		}
	}
	n.token = s.b[start:s.i:s.i]
	return n
}

func (s *scanner) next() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// digits pushes digits onto n and counts them, without zeros in front.
func (s *scanner) digits(n *integer) int {
	count := 0
	for ; s.i < len(s.b); s.i++ {
		c := s.b[s.i]
		if c < '0' || c > '9' {
			break
		}
		n.push(c)
		if n.abs != 0 {
			count++
		}
	}
	return count
}

func (s *scanner) exponent(n *number) bool {
	negative := false
	switch s.next() {
	case '-':
		negative = true
		s.i++
	case '+':
		s.i++
	}
	before, e := s.i, 0
	for ; s.i < len(s.b); s.i++ {
		c := s.b[s.i]
		if c < '0' || c > '9' {
			break
		}
		e = min(e*10+int(c-'0'), 1<<20)
	}
	if s.i == before {
		s.expected("a digit")
		return false
	}
	if negative {
		e = -e
	}
	n.exponent += e
	return true
}

// float is the nearest float64, or an infinity.
func (n *number) float() float64 {
	// Both operands exact: one correctly rounded operation gives the correctly rounded result.
	if n.digits <= 15 && -22 <= n.exponent && n.exponent <= 22 {
		f := float64(n.abs)
		if n.negative {
			f = -f
		}
		if n.exponent < 0 {
			return f / powers[-n.exponent]
		}
		return f * powers[n.exponent]
	}
	f, err := strconv.ParseFloat(string(n.token), 64)
	if err != nil && !math.IsInf(f, 0) {
		return math.NaN() // cannot be: the syntax is checked
	}
	return f
}

var powers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}
