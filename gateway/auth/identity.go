package auth

import (
	"context"
	"crypto/x509"
	"time"
)

// Identity is who calls.
type Identity struct {
	// Name is what people are shown: acknowledged by, updated by, the record of writes.
	Name string
	Role Role
	// Tags bind the identity to the twins that have all of them; empty: to none, it sees the whole fleet.
	Tags map[string]string
	// By is how it was known: local, token, oidc or certificate.
	By string
	// Expires is when it ceases to count; zero: never by itself.
	Expires time.Time

	// key tells it from all others, and is the same for as long as the same secret is in force.
	key         string
	certificate *x509.Certificate // of By certificate
}

// Scoped says whether the identity is bound to twins with certain tags.
func (id *Identity) Scoped() bool { return len(id.Tags) > 0 }

// Sees says whether a twin, or what belongs to one, with these tags is any business of the identity.
func (id *Identity) Sees(tags map[string]string) bool {
	for key, want := range id.Tags {
		if got, ok := tags[key]; !ok || got != want {
			return false
		}
	}
	return true
}

// local is everybody at a node that asks nobody who they are.
var local = Identity{Name: "local", Role: Admin, By: "local"}

// anybody is who calls what is open to strangers.
var anybody = Identity{Name: "anybody", By: "local"}

type identityKey struct{}

// NewContext returns a context of a call by id.
func NewContext(ctx context.Context, id *Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// FromContext is who made the call of ctx; where nobody asked it is the admin "local".
func FromContext(ctx context.Context) *Identity {
	if id, ok := ctx.Value(identityKey{}).(*Identity); ok {
		return id
	}
	return &local
}

// Name is the name of who made the call of ctx.
func Name(ctx context.Context) string { return FromContext(ctx).Name }

// Identified says whether it is known who made the call of ctx: somebody was asked, or nobody needs to be.
func Identified(ctx context.Context) bool {
	id, ok := ctx.Value(identityKey{}).(*Identity)
	return ok && id.Role != None
}
