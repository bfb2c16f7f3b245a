package kafka

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// SASL returns a mechanism: plain, scram-sha-256 or scram-sha-512. password is asked for every connection,
// so that it may change.
func SASL(mechanism, user string, password func() (string, error)) (sasl.Mechanism, error) {
	switch strings.ToLower(mechanism) {
	case "plain":
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			p, err := password()
			return plain.Auth{User: user, Pass: p}, err
		}), nil
	case "scram-sha-256":
		return scram.Sha256(scramAuth(user, password)), nil
	case "scram-sha-512":
		return scram.Sha512(scramAuth(user, password)), nil
	}
	return nil, fmt.Errorf("sasl mechanism %q is none of plain, scram-sha-256, scram-sha-512", mechanism)
}

func scramAuth(user string, password func() (string, error)) func(context.Context) (scram.Auth, error) {
	return func(context.Context) (scram.Auth, error) {
		p, err := password()
		return scram.Auth{User: user, Pass: p}, err
	}
}
