// Package auth says who calls and what they may do: identities from static tokens, from OpenID Connect
// and from client certificates, the role that every method asks for, the tags that an identity is
// bound to, limits for each client, the record of writes, and what devices may do at the embedded broker.
//
// It serves nothing itself: gateway/api, gateway/web and gateway/mqtt ask it. It knows no twin.
//
// Everything exported is safe for concurrent use.
package auth

import (
	"fmt"
	"strings"
)

// Role is what an identity may do; each may do all that the ones before it may.
type Role uint8

// Roles.
const (
	// None may do nothing.
	None Role = iota
	// Reader reads twins, alerts, rules, history, status and metrics.
	Reader
	// Operator also sets desired, sends commands, acknowledges and silences alerts, redrives dead letters.
	Operator
	// Admin also changes rules and tags, deletes and resets twins, drains nodes.
	Admin
)

var roleNames = [...]string{"none", "reader", "operator", "admin"}

// String is the name of a role.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// ParseRole reads reader, operator or admin.
func ParseRole(name string) (Role, error) {
	for r := Reader; r <= Admin; r++ {
		if name == roleNames[r] {
			return r, nil
		}
	}
	return None, fmt.Errorf("role %q is none of reader, operator, admin", shorten(name))
}

// UnmarshalYAML implements yaml.Unmarshaler of the tokens file.
func (r *Role) UnmarshalYAML(unmarshal func(any) error) error {
	var name string
	if err := unmarshal(&name); err != nil {
		return err
	}
	role, err := ParseRole(name)
	if err != nil {
		return err
	}
	*r = role
	return nil
}

// shorten keeps a caller's own junk out of answers and logs.
func shorten(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}
