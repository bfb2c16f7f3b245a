package router

import (
	"github.com/doppel-iot/doppel/actors/host"
)

// answers are messages that get the same verdict, collected under a mutex and told without it.
type answers struct {
	replies []host.Reply
	tokens  []uint64
}

func (a *answers) add(m *host.Message) {
	a.replies, a.tokens = append(a.replies, m.Reply), append(a.tokens, m.Token)
}

// tell tells v, as many tokens at once as one Reply has in a row, and forgets them.
func (a *answers) tell(v host.Verdict) {
	for i := 0; i < len(a.tokens); {
		n := i + 1
		for n < len(a.tokens) && a.replies[n] == a.replies[i] {
			n++
		}
		a.replies[i].Done(a.tokens[i:n], v)
		i = n
	}
	clear(a.replies)
	a.replies, a.tokens = a.replies[:0], a.tokens[:0]
}
