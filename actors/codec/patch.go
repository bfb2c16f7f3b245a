package codec

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/doppel-iot/doppel/actors/twin"
)

// patch writes JSON in the one form in which reported properties are stored, whatever format they
// came in: no white space, members in byte order of name, the shortest number, no needless escape.
// It keeps what it wrote until reset.
type patch struct {
	out     []byte
	names   []byte   // unescaped names of the open objects' members
	members []member // of the open objects
	sorted  []byte
	scan    scanner
	pack    reader
}

// member is a member of an object: its name in patch.names, its text in patch.out.
type member struct{ name, nameEnd, start, end int }

// flaw is what is wrong in a patch. path begins with a dot or bracket, or is empty.
type flaw struct {
	reason twin.Reason
	path   string
	text   string
}

func (p *patch) reset() {
	p.out, p.names, p.members = p.out[:0], p.names[:0], p.members[:0]
}

// drop forgets what was written since start, objects left open included.
func (p *patch) drop(start int) {
	p.out, p.names, p.members = p.out[:start], p.names[:0], p.members[:0]
}

// taken gives what was written since start, for keeping until reset.
func (p *patch) taken(start int) []byte {
	return p.out[start:len(p.out):len(p.out)]
}

// open begins an object and gives the index of its first member.
func (p *patch) open() int {
	p.out = append(p.out, '{')
	return len(p.members)
}

// name begins a member.
func (p *patch) name(first int, name []byte) {
	if len(p.members) > first {
		p.out = append(p.out, ',')
	}
	m := member{name: len(p.names), nameEnd: len(p.names) + len(name), start: len(p.out)}
	p.names = append(p.names, name...)
	p.members = append(p.members, m)
	p.string(name)
	p.out = append(p.out, ':')
}

// done ends the member that was begun last in the object with that first member.
func (p *patch) done() { p.members[len(p.members)-1].end = len(p.out) }

// shut ends an object: it sorts the members, and refuses a name that appears twice.
func (p *patch) shut(first int) *flaw {
	ms := p.members[first:]
	byName := func(a, b member) int {
		return bytes.Compare(p.names[a.name:a.nameEnd], p.names[b.name:b.nameEnd])
	}
	if !slices.IsSortedFunc(ms, byName) {
		start := ms[0].start
		slices.SortFunc(ms, byName)
		p.sorted = p.sorted[:0]
		for i, m := range ms {
			if i > 0 {
				p.sorted = append(p.sorted, ',')
			}
			p.sorted = append(p.sorted, p.out[m.start:m.end]...)
		}
		copy(p.out[start:], p.sorted)
	}
	for i := 1; i < len(ms); i++ {
		if byName(ms[i-1], ms[i]) == 0 {
			return &flaw{twin.NotDecodable, "." + pathName(p.names[ms[i].name:ms[i].nameEnd]), "appears twice"}
		}
	}
	if len(ms) > 0 {
		p.names = p.names[:p.firstName(ms)]
	}
	p.members = p.members[:first]
	p.out = append(p.out, '}')
	return nil
}

// firstName is where the names of these members begin.
func (*patch) firstName(ms []member) int {
	least := ms[0].name
	for _, m := range ms[1:] {
		least = min(least, m.name)
	}
	return least
}

func (p *patch) string(s []byte) {
	const hex = "0123456789abcdef"
	p.out = append(p.out, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			p.out = append(p.out, '\\', c)
		case c >= ' ':
			p.out = append(p.out, c)
		case c == '\n':
			p.out = append(p.out, '\\', 'n')
		case c == '\r':
			p.out = append(p.out, '\\', 'r')
		case c == '\t':
			p.out = append(p.out, '\\', 't')
		default:
			p.out = append(p.out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	p.out = append(p.out, '"')
}

func (p *patch) bool(b bool) { p.out = strconv.AppendBool(p.out, b) }

// integer writes an integer of at most 64 bits exactly.
func (p *patch) integer(n integer) {
	if n.negative && n.abs != 0 {
		p.out = append(p.out, '-')
	}
	p.out = strconv.AppendUint(p.out, n.abs, 10)
}

// float writes a float64; whole ones of up to 2^53 like integers, so that a format which knows only
// floats gives the same patch.
func (p *patch) float(f float64) *flaw {
	abs := math.Abs(f)
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return &flaw{twin.NotFinite, "", strconv.FormatFloat(f, 'g', -1, 64) + " is not a finite number"}
	case f == 0:
		p.out = append(p.out, '0')
	case abs < 1e-6 || abs >= 1e21:
		p.out = strconv.AppendFloat(p.out, f, 'e', -1, 64)
		if n := len(p.out); p.out[n-2] == '0' && (p.out[n-3] == '-' || p.out[n-3] == '+') { // 1e-07
			p.out = append(p.out[:n-2], p.out[n-1])
		}
	default:
		p.out = strconv.AppendFloat(p.out, f, 'f', -1, 64)
	}
	return nil
}

// tooDeep refuses an object or array at that depth, the outermost object being at 1.
func tooDeep(depth int) *flaw {
	if depth <= MaxDepth {
		return nil
	}
	return &flaw{twin.NotDecodable, "", "nested deeper than " + deepest}
}

var deepest = strconv.Itoa(MaxDepth) + " levels"

// in puts a member's name in front of the path of what is wrong in it.
func (f *flaw) in(name []byte) *flaw {
	f.path = "." + pathName(name) + f.path
	return f
}

// at puts an element's index in front of the path of what is wrong in it.
func (f *flaw) at(index int) *flaw {
	f.path = "[" + strconv.Itoa(index) + "]" + f.path
	return f
}

// pathName is a member's name for people, cut and quoted where it is not plain.
func pathName(name []byte) string {
	if len(name) > 80 || !utf8.Valid(name) || bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '"' || r == 0x7f }) {
		return strconv.Quote(string(name[:min(len(name), 80)]))
	}
	return string(name)
}
