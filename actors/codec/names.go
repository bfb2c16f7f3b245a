package codec

// maxNames bounds the interned strings of a decoder; further ones are allocated each time.
const maxNames = 1 << 16

// names gives one lasting string for each name, so that decoding a known one allocates nothing.
type names map[string]string

// known is the string if the name was met before.
func (n names) known(name []byte) (string, bool) {
	s, ok := n[string(name)]
	return s, ok
}

func (n names) intern(name []byte) string {
	if s, ok := n[string(name)]; ok {
		return s
	}
	s := string(name)
	if len(n) < maxNames {
		n[s] = s
	}
	return s
}
