// A provider with the schema of the real one and nothing behind it: `terraform validate` and `tofu validate` ask a
// provider for no more than its schema, and the real one can't be had without the registry. It plans and applies
// nothing: whoever asks for that gets no answer.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

type attribute struct {
	Type     any  `json:"type"`
	Required bool `json:"required"`
	Computed bool `json:"computed"`
}

type block struct {
	Attributes map[string]attribute `json:"attributes"`
	Blocks     map[string]block     `json:"blocks"`
	Nesting    string               `json:"nesting"`
	Min        int64                `json:"min"`
	Max        int64                `json:"max"`
}

type schemas struct {
	Resources map[string]block `json:"resources"`
	Data      map[string]block `json:"data"`
}

var simple = map[string]tftypes.Type{
	"string": tftypes.String, "number": tftypes.Number, "bool": tftypes.Bool, "dynamic": tftypes.DynamicPseudoType,
}

var nestings = map[string]tfprotov5.SchemaNestedBlockNestingMode{
	"list": tfprotov5.SchemaNestedBlockNestingModeList, "set": tfprotov5.SchemaNestedBlockNestingModeSet,
	"single": tfprotov5.SchemaNestedBlockNestingModeSingle,
}

func typeOf(said any) tftypes.Type {
	if name, ok := said.(string); ok {
		return simple[name]
	}
	parts := said.([]any)
	inner := typeOf(parts[1])
	switch parts[0] {
	case "set":
		return tftypes.Set{ElementType: inner}
	case "map":
		return tftypes.Map{ElementType: inner}
	}
	return tftypes.List{ElementType: inner}
}

func (b block) schema() *tfprotov5.SchemaBlock {
	found := &tfprotov5.SchemaBlock{}
	for name, one := range b.Attributes {
		made := &tfprotov5.SchemaAttribute{Name: name, Type: typeOf(one.Type), Required: one.Required, Computed: one.Computed}
		made.WriteOnly = strings.HasSuffix(name, "_wo")
		if !one.Required && !one.Computed {
			// What may be given the provider may also choose, unless it never keeps it.
			made.Optional, made.Computed = true, !made.WriteOnly
		}
		found.Attributes = append(found.Attributes, made)
	}
	for name, one := range b.Blocks {
		nested := &tfprotov5.SchemaNestedBlock{TypeName: name, Nesting: nestings[one.Nesting], Block: one.schema()}
		if one.Nesting != "single" {
			nested.MinItems, nested.MaxItems = one.Min, one.Max
		}
		found.BlockTypes = append(found.BlockTypes, nested)
	}
	return found
}

// The embedded interface is nil: what isn't answered below is never asked by `validate`.
type server struct {
	tfprotov5.ProviderServer
	found schemas
}

func all(blocks map[string]block) map[string]*tfprotov5.Schema {
	found := map[string]*tfprotov5.Schema{}
	for name, one := range blocks {
		found[name] = &tfprotov5.Schema{Block: one.schema()}
	}
	return found
}

func (s server) GetProviderSchema(context.Context, *tfprotov5.GetProviderSchemaRequest) (*tfprotov5.GetProviderSchemaResponse, error) {
	own := block{Attributes: map[string]attribute{"project": {Type: "string"}, "region": {Type: "string"}}}
	own.Attributes["user_project_override"] = attribute{Type: "bool"}
	own.Attributes["billing_project"] = attribute{Type: "string"}
	return &tfprotov5.GetProviderSchemaResponse{
		Provider: &tfprotov5.Schema{Block: own.schema()}, ResourceSchemas: all(s.found.Resources), DataSourceSchemas: all(s.found.Data),
	}, nil
}

func (server) PrepareProviderConfig(_ context.Context, asked *tfprotov5.PrepareProviderConfigRequest) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: asked.Config}, nil
}

func (server) ValidateResourceTypeConfig(context.Context, *tfprotov5.ValidateResourceTypeConfigRequest) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	return &tfprotov5.ValidateResourceTypeConfigResponse{}, nil
}

func (server) ValidateDataSourceConfig(context.Context, *tfprotov5.ValidateDataSourceConfigRequest) (*tfprotov5.ValidateDataSourceConfigResponse, error) {
	return &tfprotov5.ValidateDataSourceConfigResponse{}, nil
}

func (server) StopProvider(context.Context, *tfprotov5.StopProviderRequest) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}

func main() {
	text, err := os.ReadFile(os.Getenv("CHIMERA_PROVIDER_SCHEMA"))
	if err != nil {
		log.Fatal(err)
	}
	var found schemas
	if err := json.Unmarshal(text, &found); err != nil {
		log.Fatal(err)
	}
	if err := tf5server.Serve("hashicorp/google", func() tfprotov5.ProviderServer { return server{found: found} }); err != nil {
		log.Fatal(err)
	}
}
