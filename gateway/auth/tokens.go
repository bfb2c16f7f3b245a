package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// minToken is the shortest token that is taken: what is shorter can be guessed.
const minToken = 16

// Tokens is a tokens file:
//
//	tokens:
//	- {name: grafana, sha256: 9f86d0…, role: reader}
//	- {name: brno, token: a-long-random-word, role: operator, tags: {site: brno}}
//	certificates:
//	- {name: "ops-*", role: admin}
//
// A token stands there itself, at least 16 bytes, or as the hex SHA-256 of it. A certificate is that of a
// client whose common name, or one of whose DNS, mail or URI names, matches name (* stands for anything);
// the first that matches counts. tags bind an identity to the twins that have all of them.
type Tokens struct {
	tokens       map[[sha256.Size]byte]*Identity // by hash, so that the time of a look-up says nothing
	certificates []certificate
}

type certificate struct {
	pattern string
	grant   grant
}

// grant is what tokens and certificates have in common.
type grant struct {
	Name string            `yaml:"name"`
	Role Role              `yaml:"role"`
	Tags map[string]string `yaml:"tags"`
}

// tokensFile is the file as it is written. What it does not name is refused.
type tokensFile struct {
	Tokens []struct {
		grant  `yaml:",inline"`
		Token  string `yaml:"token"`
		SHA256 string `yaml:"sha256"`
	} `yaml:"tokens"`
	Certificates []struct {
		grant `yaml:",inline"`
	} `yaml:"certificates"`
}

// ParseTokens reads a tokens file. Its errors never hold a token.
func ParseTokens(text []byte) (*Tokens, error) {
	var f tokensFile
	if err := decode(text, &f); err != nil {
		return nil, err
	}
	t := &Tokens{tokens: make(map[[sha256.Size]byte]*Identity, len(f.Tokens))}
	for i := range f.Tokens {
		e := &f.Tokens[i]
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("tokens[%d]: %w", i, err)
		}
		hash, err := hashOf(e.Token, e.SHA256)
		if err != nil {
			return nil, fmt.Errorf("tokens[%d] (%s): %w", i, shorten(e.Name), err)
		}
		if other, ok := t.tokens[hash]; ok {
			return nil, fmt.Errorf("tokens[%d] (%s): has the token of %s", i, shorten(e.Name), shorten(other.Name))
		}
		t.tokens[hash] = e.identity("token", "token "+hex.EncodeToString(hash[:]))
	}
	for i := range f.Certificates {
		e := &f.Certificates[i]
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("certificates[%d]: %w", i, err)
		}
		t.certificates = append(t.certificates, certificate{pattern: e.Name, grant: e.grant})
	}
	return t, nil
}

// decode reads YAML and refuses what out has no place for. The decoder quotes values in its errors, which
// may be secrets, so that only the line is told.
func decode(text []byte, out any) error {
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	d.KnownFields(true)
	err := d.Decode(out)
	var wrong *yaml.TypeError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		// Also one that is just being written anew: nobody is to lose their access by that.
		return errors.New("is empty: to let nobody in, write {}")
	case errors.As(err, &wrong) && len(wrong.Errors) > 0:
		line, what, _ := strings.Cut(wrong.Errors[0], ": ")
		if !strings.HasPrefix(what, "field ") && !strings.HasPrefix(what, "role ") {
			what = "not what belongs there"
		}
		return fmt.Errorf("%s: %s", line, what)
	case strings.HasPrefix(err.Error(), "role "):
		return err
	default:
		line, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "yaml: "), ": ")
		return fmt.Errorf("not YAML: %s", shorten(line))
	}
}

func (g *grant) check() error {
	switch {
	case g.Name == "":
		return errors.New("name is missing")
	case g.Role == None:
		return fmt.Errorf("role of %s is missing: reader, operator or admin", shorten(g.Name))
	}
	for key := range g.Tags {
		if key == "" {
			return fmt.Errorf("tags of %s: a key is empty", shorten(g.Name))
		}
	}
	return nil
}

func (g *grant) identity(by, key string) *Identity {
	tags := make([]string, 0, len(g.Tags))
	for _, k := range slices.Sorted(maps.Keys(g.Tags)) {
		tags = append(tags, k+"="+g.Tags[k])
	}
	return &Identity{Name: g.Name, Role: g.Role, Tags: g.Tags, By: by, key: fmt.Sprintf("%s %s %q %q", key, g.Role, g.Name, tags)}
}

func hashOf(token, hash string) (sum [sha256.Size]byte, err error) {
	switch {
	case (token == "") == (hash == ""):
		return sum, errors.New("needs either token or sha256")
	case token != "" && len(token) < minToken:
		return sum, fmt.Errorf("token has %d bytes, at least %d are needed", len(token), minToken)
	case token != "":
		return sha256.Sum256([]byte(token)), nil
	}
	b, err := hex.DecodeString(hash)
	if err != nil || len(b) != len(sum) {
		return sum, errors.New("sha256 is not 64 hex digits")
	}
	return [sha256.Size]byte(b), nil
}

// token finds the identity of a token, nil: there is none.
func (t *Tokens) token(token string) *Identity {
	return t.tokens[sha256.Sum256([]byte(token))]
}

// certificate finds the identity of a verified certificate, nil: there is none.
func (t *Tokens) certificate(c *x509.Certificate) *Identity {
	names := append([]string{c.Subject.CommonName}, c.DNSNames...)
	names = append(names, c.EmailAddresses...)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	for i := range t.certificates {
		for _, name := range names {
			if name != "" && glob(t.certificates[i].pattern, name) {
				g := t.certificates[i].grant
				g.Name = name
				id := g.identity("certificate", "certificate "+t.certificates[i].pattern)
				id.certificate = c
				return id
			}
		}
	}
	return nil
}

// glob says whether s is pattern, in which * stands for anything.
func glob(pattern, s string) bool {
	first, rest, more := strings.Cut(pattern, "*")
	s, ok := strings.CutPrefix(s, first)
	for ok && more {
		var part string
		part, rest, more = strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(s, part)
		}
		_, s, ok = strings.Cut(s, part)
	}
	return ok && s == ""
}
