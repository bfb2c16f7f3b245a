package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/doppel-iot/doppel/proto"
)

// object is a JSON object.
type object = map[string]any

// newOpenAPI is the handler of the description of the JSON API.
func newOpenAPI() (http.HandlerFunc, error) {
	var doc object
	if err := yaml.Unmarshal(proto.OpenAPI, &doc); err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	complete(doc)
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
	}, nil
}

// complete adds to a generated description what the annotations cannot say.
func complete(doc object) {
	paths := at(doc, "paths")
	joinPaths(paths)
	for path, item := range paths {
		for _, operation := range asObject(item) {
			if strings.HasSuffix(path, ":watch") {
				streamed(asObject(operation))
			}
		}
	}
	for _, schema := range at(at(doc, "components"), "schemas") {
		for name, property := range at(asObject(schema), "properties") {
			at(asObject(schema), "properties")[name] = nullable(asObject(property))
		}
	}
	at(doc, "components")["securitySchemes"] = object{"token": object{"type": "http", "scheme": "bearer"}}
	doc["security"] = []any{object{}, object{"token": []any{}}} // on loopback nobody needs one
}

// nullable lets a field that is a message be null, as unset ones are written.
func nullable(property object) object {
	ref, format := property["$ref"], property["format"]
	switch {
	case ref != nil:
		return object{"allOf": []any{object{"$ref": ref}}, "nullable": true}
	case property["allOf"] != nil || format == "date-time" || format == "field-mask" || property["type"] == "object" || property["pattern"] != nil:
		property["nullable"] = true
	}
	return property
}

// joinPaths brings operations together whose paths differ in the name of a parameter only: a name such as
// twin.id says where in the request the value goes, and is no other path.
func joinPaths(paths object) {
	for path, item := range paths {
		open, end := strings.Index(path, "{"), strings.Index(path, "}")
		if open < 0 || end < open || !strings.Contains(path[open:end], ".") {
			continue
		}
		name := path[open+1 : end]
		last := name[strings.LastIndex(name, ".")+1:]
		into := path[:open+1] + last + path[end:]
		whole := at(paths, into)
		for method, operation := range asObject(item) {
			parameters, _ := asObject(operation)["parameters"].([]any)
			for _, p := range parameters {
				if q := asObject(p); q["in"] == "path" && q["name"] == name {
					q["name"] = last
				}
			}
			whole[method] = operation
		}
		delete(paths, path)
	}
}

// streamed says that the answer is one message a line.
func streamed(operation object) {
	content := at(at(at(operation, "responses"), "200"), "content")
	content["application/x-ndjson"] = content["application/json"]
	delete(content, "application/json")
}

// at is the object of a key, made where there is none.
func at(parent object, key string) object {
	if child, ok := parent[key].(object); ok {
		return child
	}
	child := object{}
	parent[key] = child
	return child
}

func asObject(v any) object {
	o, _ := v.(object)
	return o
}
