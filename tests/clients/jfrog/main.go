// What Artifactory's users do with JFrog's own client, against the mirror: `jfrog URL create UPSTREAM`, `use`, `delete`.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"

	"github.com/jfrog/jfrog-client-go/artifactory"
	"github.com/jfrog/jfrog-client-go/artifactory/auth"
	"github.com/jfrog/jfrog-client-go/artifactory/services"
	"github.com/jfrog/jfrog-client-go/artifactory/services/utils"
	"github.com/jfrog/jfrog-client-go/config"
	"github.com/jfrog/jfrog-client-go/utils/log"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func equal(what string, found, wanted any) {
	if !reflect.DeepEqual(found, wanted) {
		panic(fmt.Sprintf("%s: found %v, wanted %v", what, found, wanted))
	}
}

func pointer[T any](value T) *T { return &value }

func connect(url string) artifactory.ArtifactoryServicesManager {
	details := auth.NewArtifactoryDetails()
	details.SetUrl(url + "/artifactory/")
	settings, err := config.NewConfigBuilder().SetServiceDetails(details).SetHttpRetries(0).Build()
	check(err)
	manager, err := artifactory.New(settings)
	check(err)
	return manager
}

func keys(manager artifactory.ArtifactoryServicesManager, kind string) []string {
	listed, err := manager.GetAllRepositoriesFiltered(services.RepositoriesFilterParams{RepoType: kind, PackageType: "docker"})
	check(err)
	found := []string{}
	for _, one := range *listed {
		found = append(found, one.Key)
	}
	slices.Sort(found)
	return found
}

func create(manager artifactory.ArtifactoryServicesManager, upstream string) {
	pong, err := manager.Ping()
	check(err)
	equal("ping", string(pong), "OK")
	for _, key := range []string{"stage-local", "release-local"} {
		local := services.NewDockerLocalRepositoryParams()
		local.Key = key
		local.Description = "of JFrog's client"
		local.MaxUniqueTags = pointer(10)
		local.DockerApiVersion = "V2"
		check(manager.CreateLocalRepository().Docker(local))
	}
	remote := services.NewDockerRemoteRepositoryParams()
	remote.Key = "up-remote"
	remote.Url = upstream
	remote.EnableTokenAuthentication = pointer(true)
	remote.RetrievalCachePeriodSecs = pointer(0)
	check(manager.CreateRemoteRepository().Docker(remote))
	several := services.NewDockerVirtualRepositoryParams()
	several.Key = "all-virtual"
	several.Repositories = []string{"up-remote", "stage-local"}
	several.DefaultDeploymentRepo = "stage-local"
	check(manager.CreateVirtualRepository().Docker(several))
	local := services.NewDockerLocalRepositoryParams()
	local.Key = "release-local"
	local.MaxUniqueTags = pointer(20)
	check(manager.UpdateLocalRepository().Docker(local))

	shown := services.DockerLocalRepositoryParams{}
	check(manager.GetRepository("release-local", &shown))
	equal("maxUniqueTags", *shown.MaxUniqueTags, 20)
	equal("description", shown.Description, "of JFrog's client")
	for key, wanted := range map[string]bool{"up-remote": true, "none-local": false} {
		exists, err := manager.IsRepoExists(key)
		check(err)
		equal(key, exists, wanted)
	}
	equal("remotes", keys(manager, "remote"), []string{"up-remote"})
	equal("virtual ones", keys(manager, "virtual"), []string{"all-virtual"})
	if manager.CreateLocalRepository().Docker(local) == nil {
		panic("made twice")
	}
}

func search(manager artifactory.ArtifactoryServicesManager, pattern, props string) []string {
	params := services.NewSearchParams()
	params.CommonParams = &utils.CommonParams{Pattern: pattern, Props: props, Recursive: true}
	reader, err := manager.SearchFiles(params)
	check(err)
	defer reader.Close()
	found := []string{}
	for item := new(utils.ResultItem); reader.NextRecord(item) == nil; item = new(utils.ResultItem) {
		found = append(found, item.GetItemRelativePath())
	}
	check(reader.GetError())
	slices.Sort(found)
	return found
}

func use(manager artifactory.ArtifactoryServicesManager) {
	const manifest = "stage-local/team/app/1/manifest.json"
	equal("search", search(manager, "stage-local/team/*/manifest.json", ""), []string{manifest})
	equal("layers", len(search(manager, "stage-local/team/app/1/sha256__*", "")) > 0, true)
	params := services.NewSearchParams()
	params.CommonParams = &utils.CommonParams{Pattern: manifest, Recursive: true}
	reader, err := manager.SearchFiles(params)
	check(err)
	set, err := manager.SetProps(services.PropsParams{Reader: reader, Props: "qa=passed;by=me"})
	check(err)
	equal("properties set", set, 1)
	props, err := manager.GetItemProps(manifest)
	check(err)
	equal("qa", props.Properties["qa"], []string{"passed"})
	equal("docker.repoName", props.Properties["docker.repoName"], []string{"team/app"})
	equal("by property", search(manager, "stage-local/*", "qa=passed;docker.manifest=1"), []string{manifest})
	equal("by another", search(manager, "stage-local/*", "qa=failed"), []string{})
	info, err := manager.FileInfo(manifest)
	check(err)
	equal("checksum", "sha256:"+info.Checksums.Sha256, props.Properties["docker.manifest.digest"][0])
	folder, err := manager.FolderInfo("stage-local/team/app")
	check(err)
	equal("tags", len(folder.Children), 1)

	promotion := services.NewDockerPromoteParams("team/app", "stage-local", "release-local")
	promotion.SourceTag = "1"
	promotion.TargetTag = "1.0"
	promotion.TargetDockerImage = "team/released"
	promotion.Copy = true
	check(manager.PromoteDocker(promotion))
	equal("promoted", search(manager, "release-local/*", "qa=passed"), []string{"release-local/team/released/1.0/manifest.json"})
	promotion.SourceTag = "none"
	if manager.PromoteDocker(promotion) == nil {
		panic("what is not there was promoted")
	}
	aql, err := manager.Aql(`items.find({"repo":"release-local","@docker.repoName":{"$match":"team/*"}}).include("repo","path","name").limit(1)`)
	check(err)
	defer aql.Close()
	bytes, err := io.ReadAll(aql)
	check(err)
	answer := struct{ Results []utils.ResultItem }{}
	check(json.Unmarshal(bytes, &answer))
	equal("AQL", answer.Results[0].Path, "team/released/1.0")

	where := services.NewDeleteParams()
	where.CommonParams = &utils.CommonParams{Pattern: "stage-local/team/app/1/", Recursive: true}
	paths, err := manager.GetPathsToDelete(where)
	check(err)
	defer paths.Close()
	_, err = manager.DeleteFiles(paths)
	check(err)
	equal("left", search(manager, "stage-local/team/*", ""), []string{})
}

func remove(manager artifactory.ArtifactoryServicesManager) {
	if manager.DeleteRepository("stage-local") == nil {
		panic("a member of a virtual repository was deleted")
	}
	for _, key := range []string{"all-virtual", "up-remote", "stage-local", "release-local"} {
		check(manager.DeleteRepository(key))
		exists, err := manager.IsRepoExists(key)
		check(err)
		equal(key, exists, false)
	}
}

func main() {
	log.SetLogger(log.NewLogger(log.WARN, os.Stderr))
	manager := connect(os.Args[1])
	switch os.Args[2] {
	case "create":
		create(manager, os.Args[3])
	case "use":
		use(manager)
	case "delete":
		remove(manager)
	default:
		check(errors.New("create UPSTREAM, use or delete"))
	}
}
