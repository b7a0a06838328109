"""aws/access.yaml and cluster.yaml against a stand-in of AWS, by the calls that the AWS CLI and `ray up` make."""

import copy
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config

from tests.cluster.files import load, text_of

REGION = "us-west-2"
HERE = "203.0.113.7/32"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """An empty account, with a home in which Ray puts the key that it makes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield


def deploy(ssh_from: str = HERE) -> str:
    """As `aws cloudformation deploy` does; the id of the security group."""
    vpcs = boto3.client("ec2", REGION).describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])
    given = {"SshFrom": ssh_from, "Bucket": "my-bucket", "Vpc": vpcs["Vpcs"][0]["VpcId"]}
    stacks = boto3.client("cloudformation", REGION)
    stacks.create_stack(
        StackName="tvt-ray",
        TemplateBody=text_of("aws/access.yaml"),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    (output,) = stacks.describe_stacks(StackName="tvt-ray")["Stacks"][0]["Outputs"]
    return str(output["OutputValue"])


def filled_in(group: str) -> dict[str, Any]:
    """cluster.yaml with the ids of an image and a security group, as its reader writes them."""
    image = boto3.client("ec2", REGION).describe_images()["Images"][0]["ImageId"]
    config = load("cluster.yaml")
    for node in config["available_node_types"].values():
        node["node_config"] |= {"ImageId": image, "SecurityGroupIds": [group]}
    return config


def launched(group: str) -> dict[str, Any]:
    """What `ray up` makes of that."""
    made: dict[str, Any] = bootstrap_aws(prepare_config(filled_in(group)))
    return made


def test_one_place_may_log_in_and_the_machines_reach_each_other(aws: None) -> None:
    group = deploy()
    (found,) = boto3.client("ec2", REGION).describe_security_groups(GroupIds=[group])["SecurityGroups"]
    ssh, inside = sorted(found["IpPermissions"], key=lambda rule: rule["IpProtocol"] == "-1")
    assert (ssh["FromPort"], ssh["ToPort"], [each["CidrIp"] for each in ssh["IpRanges"]]) == (22, 22, [HERE])
    assert [each["GroupId"] for each in inside["UserIdGroupPairs"]] == [group]
    assert not inside["IpRanges"]


def test_ray_makes_no_role_and_no_group_of_its_own(aws: None) -> None:
    group = deploy()
    before = boto3.client("ec2", REGION).describe_security_groups()["SecurityGroups"]
    config = launched(group)
    assert [role["RoleName"] for role in boto3.client("iam").list_roles()["Roles"]] == ["tvt-ray-head"]
    assert boto3.client("ec2", REGION).describe_security_groups()["SecurityGroups"] == before
    nodes = {name: each["node_config"] for name, each in config["available_node_types"].items()}
    assert all(each["SecurityGroupIds"] == [group] for each in nodes.values())
    assert nodes["head"]["IamInstanceProfile"] == {"Name": "tvt-ray-head"}
    assert "IamInstanceProfile" not in nodes["gpu_worker"]


def test_without_them_ray_up_fails_rather_than_open_the_machines(aws: None) -> None:
    before = boto3.client("ec2", REGION).describe_security_groups()["SecurityGroups"]
    with pytest.raises(AssertionError):  # Ray finds no group sg-REPLACE, and says so
        bootstrap_aws(prepare_config(copy.deepcopy(load("cluster.yaml"))))
    assert not boto3.client("iam").list_roles()["Roles"]
    assert boto3.client("ec2", REGION).describe_security_groups()["SecurityGroups"] == before


def test_rays_provider_starts_tags_and_ends_a_machine(aws: None) -> None:
    config = launched(deploy())
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    node = config["available_node_types"]["gpu_worker"]["node_config"]
    tags = {"ray-node-type": "worker", "ray-user-node-type": "gpu_worker", "ray-node-name": "w"}
    (instance,) = provider.create_node(node, tags, 1)
    (found,) = boto3.client("ec2", REGION).describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
    assert {"Key": "ray-cluster-name", "Value": "tvt-ray"} in found["Tags"]  # what the head's role asks for
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    provider.terminate_node(instance)
    assert provider.non_terminated_nodes({}) == []


def test_the_heads_role_names_what_it_may_do(aws: None) -> None:
    """No action of a whole service, and no resource but what a listing needs."""
    deploy()
    client = boto3.client("iam")
    assert client.list_attached_role_policies(RoleName="tvt-ray-head")["AttachedPolicies"] == []
    for name in client.list_role_policies(RoleName="tvt-ray-head")["PolicyNames"]:
        document = client.get_role_policy(RoleName="tvt-ray-head", PolicyName=name)["PolicyDocument"]
        document = yaml.safe_load(document) if isinstance(document, str) else document
        for statement in document["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert not any("*" in action for action in actions)
            assert statement["Resource"] != "*" or all(":Describe" in action for action in actions)
            tagged = {"ec2:TerminateInstances"} & set(actions)
            assert not tagged or "aws:ResourceTag/ray-cluster-name" in statement["Condition"]["StringEquals"]


def test_the_world_is_no_place_to_log_in_from() -> None:
    class Loader(yaml.SafeLoader):
        """Takes CloudFormation's own tags as they are."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: node.value)
    pattern = yaml.load(text_of("aws/access.yaml"), Loader)["Parameters"]["SshFrom"]["AllowedPattern"]
    assert re.fullmatch(pattern, HERE)
    assert re.fullmatch(pattern, "10.0.0.0/8")
    assert not re.fullmatch(pattern, "0.0.0.0/0")
    assert not re.fullmatch(pattern, "0.0.0.0/1")
