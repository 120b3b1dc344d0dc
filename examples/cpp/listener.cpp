// Subscribes to `segmentation` and logs what was found, with its mask, and what was not.
//
//   ros2 run gsva_ros gsva_listener --ros-args -r segmentation:=/segmentation
//
// Acts only on SEGMENTED. An outcome of 0 is UNKNOWN, which the node never sends, so a message that
// was never filled in cannot mean "go".

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "gsva_ros/msg/instance_mask.hpp"
#include "gsva_ros/msg/outcome.hpp"
#include "gsva_ros/msg/segmentation.hpp"
#include "rclcpp/rclcpp.hpp"

namespace
{

using gsva_ros::msg::InstanceMask;
using gsva_ros::msg::Outcome;
using gsva_ros::msg::Segmentation;

// The mask at the image's size, row-major: 255 on the object, 0 elsewhere.
std::vector<std::uint8_t> whole_mask(
  const InstanceMask & instance, std::uint32_t width, std::uint32_t height)
{
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(width) * height, 0);
  const auto & roi = instance.roi;
  for (std::uint32_t row = 0; row < roi.height; ++row) {
    const auto from = instance.mask.data.begin() + row * instance.mask.step;
    const auto to = mask.begin() + (roi.y_offset + row) * width + roi.x_offset;
    std::copy(from, from + roi.width, to);
  }
  return mask;
}

class Listener : public rclcpp::Node
{
public:
  Listener()
  : Node("gsva_listener")
  {
    subscription_ = create_subscription<Segmentation>(
      "segmentation", rclcpp::QoS(10).reliable(),
      [this](const Segmentation::ConstSharedPtr answer) {tell(*answer);});
  }

private:
  void tell(const Segmentation & answer)
  {
    for (const auto & outcome : answer.outcomes) {
      if (outcome.outcome != Outcome::SEGMENTED) {
        RCLCPP_INFO(
          get_logger(), "%s: outcome %u, nothing to act on: %s", outcome.expression.c_str(),
          outcome.outcome, outcome.reason.c_str());
      }
    }
    for (const auto & instance : answer.instances) {
      const auto mask = whole_mask(instance, answer.width, answer.height);
      const auto pixels = std::count(mask.begin(), mask.end(), 255);
      RCLCPP_INFO(
        get_logger(), "%s: %ld pixels at x %u y %u, p([SEG]) %.3f", instance.expression.c_str(),
        static_cast<long>(pixels), instance.roi.x_offset, instance.roi.y_offset, instance.p_seg);
    }
  }

  rclcpp::Subscription<Segmentation>::SharedPtr subscription_;
};

}  // namespace

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  rclcpp::spin(std::make_shared<Listener>());
  rclcpp::shutdown();
  return 0;
}
