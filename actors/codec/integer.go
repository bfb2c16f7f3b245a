package codec

import (
	"strconv"
)

// integer is a number of a message as its format gave it, before anyone asked whether it is in range.
type integer struct {
	abs      uint64
	negative bool
	fraction bool   // not an integer; abs means nothing
	overflow bool   // beyond 64 bits; abs means nothing
	token    []byte // as written, if it was text; valid as long as the payload
}

func unsigned(n uint64) integer { return integer{abs: n} }

func signed(n int64) integer {
	if n < 0 {
		return integer{abs: -uint64(n), negative: true}
	}
	return integer{abs: uint64(n)}
}

// digits reads text that is an integer in decimal.
func digits(text []byte) (integer, bool) {
	n := integer{token: text}
	if len(text) > 0 && text[0] == '-' {
		n.negative = true
		text = text[1:]
	}
	if len(text) == 0 {
		return integer{}, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return integer{}, false
		}
		n.push(c)
	}
	return n, true
}

// push appends a decimal digit.
func (n *integer) push(c byte) {
	const limit = (1<<64 - 1) / 10
	v := uint64(c - '0')
	if n.abs > limit || n.abs == limit && v > 5 {
		n.overflow = true
	}
	n.abs = n.abs*10 + v
}

// check is what is wrong with a boot, seq or session, whose least value is least; "" if nothing.
func (n integer) check(least uint64) string {
	switch {
	case n.fraction:
		return n.text() + " is not an integer"
	case n.negative && (n.abs > 0 || n.overflow):
		return n.text() + " is negative"
	case n.overflow || n.abs > maxNumber:
		return n.text() + " is more than 2^63-1"
	case n.abs < least:
		return n.text() + " is less than " + strconv.FormatUint(least, 10)
	}
	return ""
}

// text is the number for people, cut if it is long.
func (n integer) text() string {
	if n.token != nil {
		if len(n.token) > 40 {
			return string(n.token[:40]) + "…"
		}
		return string(n.token)
	}
	s := strconv.FormatUint(n.abs, 10)
	if n.negative {
		return "-" + s
	}
	return s
}
